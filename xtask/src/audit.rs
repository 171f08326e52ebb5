//! `cargo xtask audit`: what we depend on, by cargo-deny and `deny.toml`. CI does not run it: what it says changes without us.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cargo, tool};

/// Its `rust-version` is 1.88.
const CARGO_DENY: &str = "0.20.2";

/// What needs nothing from outside.
const CHECKS: [&str; 3] = ["bans", "licenses", "sources"];

pub(crate) fn run() -> Result<()> {
    install()?;
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

fn install() -> Result<()> {
    let installed = tool::call_quietly(&mut cargo::command(&["deny", "--version"]));
    if installed.is_ok_and(|version| version.split_whitespace().last() == Some(CARGO_DENY)) {
        return Ok(());
    }
    let package = format!("cargo-deny@{CARGO_DENY}");
    tool::note(&format!("installing {package} (some minutes): cargo install --locked {package}"));
    tool::call(&mut cargo::command(&["install", "--locked", "--quiet", &package]))
        .with_context(|| format!("install {package}"))?;
    if tool::find("cargo-deny").is_none() {
        bail!("cargo-deny is installed but not found: add cargo's bin directory to PATH");
    }
    Ok(())
}
