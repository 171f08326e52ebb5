//! How the daemon is set up.

use std::{num::NonZeroU32, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Span, socket};

/// `[daemon]`: read by `redirector run` when it starts. An option of the command line goes before the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DaemonOptions {
    /// The control socket: an absolute path, or `unix:///PATH`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "socket::from_file")]
    #[schemars(with = "Option<String>")]
    pub socket: Option<PathBuf>,
    /// Where Docker listens: an absolute path, or `unix:///PATH`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "socket::from_file")]
    #[schemars(with = "Option<String>")]
    pub docker_socket: Option<PathBuf>,
    /// Where Podman listens: an absolute path, or `unix:///PATH`.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "socket::from_file")]
    #[schemars(with = "Option<String>")]
    pub podman_socket: Option<PathBuf>,
    /// Connections that all namespaces together may have at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<NonZeroU32>,
    /// Connections that one client's address may have at once in one namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_client: Option<NonZeroU32>,
    /// How long relayed connections may go on after SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Span>,
    /// How often the host names of destinations are looked up, and the namespaces that connections go to looked for (those of
    /// containers six times less often). `0s` is only when a connection fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolve_interval: Option<Span>,
    /// How log lines are written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,
    /// How much is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogLevel>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What did not work and should have.
    Error,
    /// What may surprise as well.
    Warn,
    /// What was done as well.
    Info,
    /// Each relayed connection that ends as well.
    Debug,
    /// All of it.
    Trace,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object on each line.
    Json,
}

impl DaemonOptions {
    /// Paths that are not absolute, by their keys.
    pub(super) fn relative_paths(&self) -> impl Iterator<Item = &'static str> {
        let paths = [
            ("socket", &self.socket),
            ("docker_socket", &self.docker_socket),
            ("podman_socket", &self.podman_socket),
        ];
        let is_relative = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.is_relative());
        paths.into_iter().filter(move |(_, path)| is_relative(path)).map(|(key, _)| key)
    }
}
