//! Programs that crates.io has, each at the version that we name. They belong to the user.

use anyhow::{Context as _, Result, bail};

use crate::{cargo, tool};

/// Installs a program where that version of it is not there yet.
pub(crate) fn ensure(name: &str, version: &str) -> Result<()> {
    let installed = tool::command(name).and_then(|mut program| tool::call_quietly(program.arg("--version")));
    if installed.is_ok_and(|installed| installed.split_whitespace().last() == Some(version)) {
        return Ok(());
    }
    let package = format!("{name}@{version}");
    tool::note(&format!("installing {package} (some minutes): cargo install --locked {package}"));
    tool::call(&mut cargo::command(&["install", "--locked", "--quiet", &package]))
        .with_context(|| format!("install {package}"))?;
    if tool::find(name).is_none() {
        bail!("{name} is installed but not found: add cargo's bin directory to PATH");
    }
    Ok(())
}
