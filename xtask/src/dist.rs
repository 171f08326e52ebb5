//! `cargo xtask dist`: what users install, in `target/dist/`. One binary that runs on every Linux of its architecture,
//! and the files around it, once as a tar file and once as a Debian package.
//!
//! With `--check` both are used, on systems that are thrown away afterwards.

mod binary;
pub(crate) mod check;
mod debian;
mod security;
mod tar;
mod tree;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    prepare::{self, Purpose},
    tool,
};

/// The version of the whole workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Install the package on two throw-away systems (a copy of this one, and Debian 11), use it, and purge it
    #[arg(long)]
    pub(crate) check: bool,
}

/// The binary that users get.
pub(crate) fn binary() -> Result<PathBuf> {
    let directory = directory();
    fs::create_dir_all(&directory).with_context(|| format!("create `{}`", directory.display()))?;
    binary::build(&directory)
}

pub(crate) fn run(options: &Options) -> Result<()> {
    prepare::ensure(Purpose::Dist)?;
    let binary = binary()?;
    tree::lay_out(&binary)?;
    let epoch = tar::epoch()?;
    let archive = tar::pack(epoch)?;
    let package = debian::build(epoch)?;
    debian::lint(&package)?;
    for file in [&binary, &archive, &package] {
        let size = fs::metadata(file).with_context(|| format!("stat `{}`", file.display()))?.len();
        tool::note(&format!("{} KiB {}", size / 1024, file.display()));
    }
    tool::note(&security::score(&tree::unit())?);
    if options.check {
        check::start(&binary, &package)?;
    }
    Ok(())
}

fn directory() -> PathBuf {
    tool::root().join("target/dist")
}

/// Below this there is what belongs below `/usr` of the system that redirector is installed on.
fn root() -> PathBuf {
    directory().join("root")
}

fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("write `{}`", path.display()))
}
