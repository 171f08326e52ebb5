//! `cargo xtask build`: the release binary, after installing what building it needs.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{cargo, setup};

pub(crate) fn run() -> Result<()> {
    redirector().map(drop)
}

/// Builds the release binary and returns where it is.
pub(crate) fn redirector() -> Result<PathBuf> {
    setup::for_build()?;
    let built = cargo::executables(&["build", "--release", "--locked", "--package", "redirector"])?;
    let binary = built.into_iter().find(|executable| executable.target == "bin redirector");
    Ok(binary.context("cargo named no binary `redirector`")?.path)
}
