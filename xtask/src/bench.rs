//! `cargo xtask bench`: figures, as ratios of things that are run side by side. No test depends on them.

use anyhow::Result;
use clap::ValueEnum;

use crate::{build, cargo, privilege, setup, tool};

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure
    subject: Subject,
    /// For `control`: with how many namespaces
    #[arg(value_name = "NAMESPACES")]
    counts: Vec<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subject {
    /// What a decision of the kernel program costs, in nanoseconds, with one rule and with ten thousand
    Steer,
    /// What attach, detach, apply, list and a death cost, with one namespace and with a thousand
    Control,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let name = match options.subject {
        Subject::Steer => "steer",
        Subject::Control => "control",
    };
    setup::for_build()?;
    let redirector = build::released()?;
    let environment = [("REDIRECTOR_BIN", redirector.as_os_str())];
    let built = cargo::executables(&[
        "bench",
        "--no-run",
        "--locked",
        "--package",
        "redirector-tests",
        "--bench",
        name,
    ])?;
    for executable in built {
        let mut bench = privilege::command(&executable.path, &environment)?;
        tool::call(bench.args(options.counts.iter().map(u32::to_string)))?;
    }
    Ok(())
}
