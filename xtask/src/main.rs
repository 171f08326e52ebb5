//! The developer's commands: `cargo xtask build`, `run`, `test`, `bench` and `ci`. One file a command.
//!
//! Hidden commands are pieces of these that need a process of their own: as root, or inside a namespace.

#![forbid(unsafe_code)]

mod audit;
mod bench;
mod build;
mod cargo;
mod ci;
mod crates;
mod demo;
mod dist;
mod engine;
mod prepare;
mod privilege;
mod pypi;
mod run;
mod setup;
mod soak;
mod test;
mod tool;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "The developer's commands of redirector")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what a build needs, then build target/release/redirector
    Build,
    /// Build, then show redirector at work between two namespaces; or run it: `run -- ARGS…`
    Run(run::Options),
    /// Build, then run all tests, or those whose names contain a FILTER
    Test(test::Options),
    /// Formatting, lints, documentation and all tests: what .ci/run runs
    Ci,
    /// Tests that take long, by theme: before an issue is called resolved
    Soak(soak::Options),
    /// Look at what we depend on: known flaws, licences, sources (cargo-deny)
    Audit,
    /// Measure: figures are printed, and kept as JSON
    Bench(bench::Options),
    /// Build what users install: target/dist/
    Dist(dist::Options),
    #[command(hide = true)]
    DistCheck(dist::check::Options),
    #[command(hide = true)]
    Prepare(prepare::Options),
    #[command(hide = true)]
    Demo(demo::Options),
    #[command(hide = true)]
    Engine(engine::serve::Options),
    #[command(hide = true)]
    Echo,
    #[command(hide = true)]
    Say(demo::say::Options),
    #[command(hide = true)]
    Netfilter,
    #[command(hide = true)]
    VmInit(vm::init::Options),
}

fn main() -> ExitCode {
    let Options { command } = Options::parse();
    match execute(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tool::note(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Build => build::run(),
        Command::Run(options) => run::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Ci => ci::run(),
        Command::Soak(options) => soak::run(&options),
        Command::Audit => audit::run(),
        Command::Bench(options) => bench::run(&options),
        Command::Dist(options) => dist::run(&options),
        Command::DistCheck(options) => dist::check::run(&options),
        Command::Prepare(options) => prepare::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Engine(options) => engine::serve::run(&options),
        Command::Echo => demo::echo::serve(),
        Command::Say(options) => demo::say::run(&options),
        Command::Netfilter => demo::netfilter::run(),
        Command::VmInit(options) => vm::init::run(&options),
    }
}
