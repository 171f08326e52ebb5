//! `cargo xtask build`: the release binary, after installing what building it needs. Demo and tests have one of their own.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::{cargo, setup};

pub(crate) fn run() -> Result<()> {
    released().map(drop)
}

/// Builds the release binary, and returns where it is.
pub(crate) fn released() -> Result<PathBuf> {
    build(&["--release"])
}

/// Builds the binary by the profile that the tests have too, and returns where it is.
pub(crate) fn redirector() -> Result<PathBuf> {
    build(&[])
}

fn build(profile: &[&str]) -> Result<PathBuf> {
    setup::for_build()?;
    // The features of dependencies are those of all that is selected: of the whole workspace, as for its tests.
    let built = cargo::executables(
        &[&["build", "--locked", "--workspace", "--bin", "redirector"], profile].concat(),
    )?;
    let binary = built.into_iter().find(|executable| executable.target == "bin redirector");
    Ok(binary.context("cargo named no binary `redirector`")?.path)
}
