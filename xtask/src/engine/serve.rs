//! `xtask engine`: an engine for somebody else, the tests for example, for as long as its stdin is open.
//!
//! It says one line of JSON when the engine is there. A line on its stdin makes it `stop`, `kill` or `start` the
//! engine's process, and is answered when that is done.

use std::io::{self, BufRead as _, Write as _};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::Signal;

use super::{Engine, IMAGE, Kind};
use crate::demo::interrupt::Interrupt;

#[derive(clap::Args)]
pub(crate) struct Options {
    kind: Kind,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut engine = Engine::start(&interrupt, options.kind)?;
    let description = serde_json::json!({
        "socket": engine.socket(),
        "host": engine.host(),
        "netns": engine.netns(),
        "image": IMAGE,
    });
    say(&description.to_string())?;
    for line in io::stdin().lock().lines() {
        match line.context("read stdin")?.as_str() {
            "stop" => engine.stop_process(Signal::SIGTERM)?,
            "kill" => engine.stop_process(Signal::SIGKILL)?,
            "start" => engine.start_process(&interrupt)?,
            other => bail!("`{other}` is not a command"),
        }
        say("done")?;
    }
    // What was stopped has containers to remove.
    if engine.process.is_none() {
        engine.start_process(&interrupt)?;
    }
    Ok(())
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("write to stdout")
}
