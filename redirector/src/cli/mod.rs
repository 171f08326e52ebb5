//! The command line: parse, call, print.

mod args;
mod attach;
mod cleanup;
mod completions;
mod detach;
mod doctor;
mod exec;
mod exit;
mod list;
mod man;
mod run;

use std::process::ExitCode;

use clap::Parser as _;

use self::{
    args::{Args, Command},
    exit::Failure,
};

/// Everything that the binary does.
#[must_use]
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return exit::usage(&error),
    };
    let result = match args.command {
        Command::Run(command) => run::run(&args.socket, &command),
        Command::Attach(command) => client(attach::attach(&args.socket, command)),
        Command::Detach(command) => client(detach::detach(&args.socket, command)),
        Command::List(command) => client(list::list(&args.socket, command)),
        Command::Doctor(command) => doctor::doctor(&args.socket, &command),
        Command::Cleanup(command) => cleanup::cleanup(&args.socket, &command),
        Command::Completions(command) => completions::completions(&command),
        Command::Man(command) => man::man(&command),
        Command::Exec(command) => return exec::exec(&args.socket, &command),
    };
    exit::finish(result)
}

/// Runs a client command: one thread is plenty.
fn client(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command)
}
