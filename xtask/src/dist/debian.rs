//! The Debian package, by cargo-deb; what goes in is said in `redirector/Cargo.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::{binary, directory};
use crate::{cargo, tool};

const CARGO_DEB: &str = "3.8.0";

/// Packs what is in the tree already.
pub(super) fn build(epoch: u64) -> Result<PathBuf> {
    cargo_deb()?;
    let mut deb = cargo::command(&["deb", "--quiet", "--no-build", "--no-strip", "--package", "redirector"]);
    deb.args(["--target", &binary::target(), "--output"]).arg(directory());
    let printed = tool::call_quietly(deb.env("SOURCE_DATE_EPOCH", epoch.to_string()))?;
    let package = printed.lines().next_back().map(PathBuf::from);
    let package = package.filter(|package| package.is_file()).context("cargo-deb named no package")?;
    Ok(package)
}

/// Debian's own check of a package. An error or a warning is a failure; what we do otherwise with reason is in
/// `packaging/debian/lintian-overrides`.
pub(super) fn lint(package: &Path) -> Result<()> {
    if tool::find("lintian").is_none() {
        tool::note("`lintian` is missing: the package is not checked by it");
        return Ok(());
    }
    tool::call(tool::command("lintian")?.args(["--fail-on", "error,warning"]).arg(package))
}

fn cargo_deb() -> Result<()> {
    let installed = tool::call_quietly(&mut cargo::command(&["deb", "--version"]));
    if installed.is_ok_and(|version| version.split_whitespace().last() == Some(CARGO_DEB)) {
        return Ok(());
    }
    let package = format!("cargo-deb@{CARGO_DEB}");
    tool::note(&format!("installing {package} (a minute): cargo install --locked {package}"));
    // It packs one file, by the system's xz: a build without optimisation is as fast there and much faster to make.
    let options = ["--locked", "--quiet", "--debug", "--no-default-features"];
    tool::call(cargo::command(&["install"]).args(options).arg(&package))
        .with_context(|| format!("install {package}"))?;
    if tool::find("cargo-deb").is_none() {
        bail!("cargo-deb is installed but not found: add cargo's bin directory to PATH");
    }
    Ok(())
}
