//! `redirector completions`.

use std::io::{self, Write as _};

use clap::CommandFactory as _;

use super::{args, exit::Failure};

/// Into memory first: the generator panics where it cannot write.
pub(super) fn completions(command: &args::Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut args::Args::command(), "redirector", &mut script);
    Ok(io::stdout().lock().write_all(&script)?)
}
