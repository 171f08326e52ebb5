//! `redirector completions`.

use std::io::Write as _;

use clap::CommandFactory as _;

use super::{args, exit::Failure, output};

/// Into memory first: the generator panics where it cannot write.
pub(super) fn completions(command: &args::Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(command.shell, &mut args::Args::command(), "redirector", &mut script);
    output::print(|out| out.write_all(&script))?;
    Ok(())
}
