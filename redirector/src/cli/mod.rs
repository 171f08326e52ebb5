//! The command line: parse, call, print.

mod apply;
mod args;
mod attach;
mod check;
mod cleanup;
mod close;
mod completions;
mod detach;
mod doctor;
mod exec;
mod exit;
mod explain;
mod export;
mod file;
mod file_rules;
mod files;
mod health;
mod hints;
mod list;
mod man;
mod output;
mod run;
mod usage;
mod words;

use std::{env, process::ExitCode};

use clap::Parser as _;

use crate::control::DEFAULT_SOCKET;

use self::{
    args::{Args, Command},
    exit::Failure,
};

/// Everything that the binary does.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(kind) = env::var_os("REDIRECTOR_COMPLETE") {
        completions::print_names(&kind, env::args_os().nth(1).as_ref());
        return ExitCode::SUCCESS;
    }
    let typed = words::of(env::args_os());
    let args = match Args::try_parse_from(&typed) {
        Ok(args) => args,
        Err(error) => return usage::usage(&error, &typed),
    };
    let socket = args.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
    let result = match args.command {
        Command::Run(command) => return exit::finish_in_time(run::run(args.socket, command)),
        Command::Attach(command) => client(attach::attach(&socket, command)),
        Command::Detach(command) => client(detach::detach(&socket, command)),
        Command::Close(command) => client(close::close(&socket, command)),
        Command::List(command) => client(list::list(&socket, command)),
        Command::Explain(command) => client(explain::explain(&socket, command)),
        Command::Apply(command) => client(apply::apply(&socket, command)),
        Command::Export(command) => client(export::export(&socket, command)),
        Command::Check(command) => check::check(&command),
        Command::Doctor(command) => doctor::doctor(&socket, &command),
        Command::Cleanup(command) => cleanup::cleanup(&socket, &command),
        Command::Completions(command) => completions::completions(&command),
        Command::Man(command) => man::man(&command),
        Command::Exec(command) => return exec::exec(&socket, &command),
    };
    exit::finish(result)
}

/// Runs a client command: one thread is plenty.
fn client(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command)
}
