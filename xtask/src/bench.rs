//! `cargo xtask bench`: figures, as ratios of things that are run side by side. No test depends on them.

use anyhow::Result;
use clap::ValueEnum;

use crate::{cargo, privilege, setup, tool};

/// What is measured.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// What to measure
    subject: Subject,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subject {
    /// What a decision of the kernel program costs, in nanoseconds, with one rule and with ten thousand
    Steer,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let name = match options.subject {
        Subject::Steer => "steer",
    };
    setup::for_build()?;
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
        tool::call(&mut privilege::command(&executable.path, &[])?)?;
    }
    Ok(())
}
