//! The command line under test.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::{
    command::{self, Outcome},
    daemon::binary,
    netns::Netns,
};

/// `redirector` with a control socket.
#[derive(Clone, Debug)]
pub struct Cli {
    socket: PathBuf,
}

impl Cli {
    /// For this control socket.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// The command, not yet run.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).env("REDIRECTOR_SOCKET", &self.socket).env_remove("RUST_LOG");
        command
    }

    /// Runs it.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        command::run(&mut self.command(arguments))
    }

    /// Runs it inside a namespace.
    #[track_caller]
    pub fn run_in(&self, netns: &Netns, arguments: &[&str]) -> Outcome {
        netns.enter(|| self.run(arguments))
    }

    /// Runs it with `--json`; it must succeed with one document of schema 1 and nothing else.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        document(&self.run(&[arguments, &["--json"]].concat()).success())
    }
}

/// The one document of schema 1 that a command printed.
#[track_caller]
#[must_use]
pub fn document(outcome: &Outcome) -> Value {
    let document: Value = serde_json::from_str(&outcome.stdout)
        .unwrap_or_else(|error| panic!("must print one JSON document: {error}{outcome}"));
    assert_eq!(document["schema"], 1, "{outcome}");
    document
}

/// What a command that must fail with this code said after `error: `. It says so in one line, perhaps with one
/// `hint: ` line after it, and prints no data.
#[track_caller]
pub fn error(outcome: &Outcome, code: i32) -> String {
    assert_eq!(outcome.code(), code, "exit code{outcome}");
    assert_eq!(outcome.stdout, "", "must print no data{outcome}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    let errors: Vec<_> = lines.iter().filter_map(|line| line.strip_prefix("error: ")).collect();
    let hints = lines.iter().filter(|line| line.starts_with("hint: ")).count();
    assert_eq!(errors.len(), 1, "must say one `error: `{outcome}");
    assert!(hints <= 1, "must say one `hint: ` at most{outcome}");
    assert!(!errors[0].trim().is_empty(), "must say what is wrong{outcome}");
    errors[0].to_owned()
}
