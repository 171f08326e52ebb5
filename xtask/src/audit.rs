//! `cargo xtask audit`: what we depend on, by cargo-deny and `deny.toml`. CI does not run it: what it says changes without us.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, crates, tool};

/// Its `rust-version` is 1.88.
const CARGO_DENY: &str = "0.20.2";

/// What needs nothing from outside.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

pub(crate) fn run() -> Result<()> {
    crates::ensure("cargo-deny", CARGO_DENY)?;
    tool::call(&mut deny(&CHECKS))?;
    // Known flaws are in a database that has to be fetched.
    if let Err(error) = tool::call_quietly(&mut cargo::command(&["deny", "fetch", "db"])) {
        tool::note(&format!(
            "advisories are not looked at, their database cannot be had: {}",
            first_line(&error)
        ));
        return Ok(());
    }
    tool::call(&mut deny(&["--disable-fetch", "advisories"]))
}

fn deny(checks: &[&str]) -> Command {
    let mut command = cargo::command(&["deny", "--workspace", "--locked", "check", "--hide-inclusion-graph"]);
    command.args(checks);
    command
}

fn first_line(error: &anyhow::Error) -> String {
    error.to_string().split("; ").next().unwrap_or_default().to_owned()
}
