//! `cargo xtask run`: the demo; with arguments after `--`, redirector itself.

use std::{ffi::OsString, os::unix::process::CommandExt as _};

use anyhow::{Result, anyhow};

use crate::{build, demo, engine::Kind, privilege, tool};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// End when the demo has shown what it has to show
    #[arg(long, conflicts_with = "arguments")]
    once: bool,
    /// The demo with two containers of Docker on a bridge network
    #[arg(long, conflicts_with_all = ["arguments", "podman"])]
    docker: bool,
    /// The demo with two containers of Podman on a bridge network
    #[arg(long, conflicts_with = "arguments")]
    podman: bool,
    /// Run `redirector ARGS…` instead of the demo
    #[arg(last = true, value_name = "ARGS")]
    arguments: Vec<OsString>,
}

impl Options {
    /// The demo, to its end.
    pub(crate) fn first() -> Self {
        Self { once: true, docker: false, podman: false, arguments: Vec::new() }
    }

    /// The demo with containers, to its end.
    pub(crate) fn once(engine: Kind) -> Self {
        Self { docker: engine == Kind::Docker, podman: engine == Kind::Podman, ..Self::first() }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let engine = match (options.docker, options.podman) {
        (true, _) => Some(Kind::Docker),
        (_, true) => Some(Kind::Podman),
        _ => None,
    };
    if options.arguments.is_empty() && engine.is_none() {
        // Before a build that may take minutes. The demo looks again.
        demo::refuse_taken_names()?;
    }
    let redirector = build::redirector()?;
    if !options.arguments.is_empty() {
        let mut command = privilege::command(&redirector, &[])?;
        // Signals and the exit code are then redirector's own.
        let error = command.args(&options.arguments).exec();
        return Err(anyhow!(error).context(format!("start {}", tool::show(&command))));
    }
    let demo = demo::Options { redirector, once: options.once, engine };
    if privilege::is_root() {
        return demo::run(&demo);
    }
    let mut command = privilege::command(&tool::myself()?, &[])?;
    command.args(["demo", "--redirector"]).arg(&demo.redirector);
    if demo.once {
        command.arg("--once");
    }
    if let Some(engine) = demo.engine {
        command.args(["--engine", &engine.to_string()]);
    }
    let error = command.exec();
    Err(anyhow!(error).context(format!("start {}", tool::show(&command))))
}
