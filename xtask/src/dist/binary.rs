//! The binary that users get: nothing but the kernel is needed to run it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use object::{
    Endianness, elf,
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

use crate::{cargo, setup, tool};

/// The C library that Rust links into the binary itself.
pub(super) fn target() -> String {
    format!("{}-unknown-linux-musl", env::consts::ARCH)
}

/// Builds it and puts it, without symbols, into `directory`.
pub(super) fn build(directory: &Path) -> Result<PathBuf> {
    setup::for_build()?;
    let target = target();
    standard_library(&target)?;
    let arguments = ["build", "--release", "--locked", "--package", "redirector", "--target", &target];
    let built = cargo::executables(&arguments)?;
    let built = built.into_iter().find(|executable| executable.target == "bin redirector");
    let built = built.context("cargo named no binary `redirector`")?.path;
    let binary = directory.join("redirector");
    let mut strip = tool::command("strip")?;
    tool::call_quietly(strip.arg("--strip-all").arg("-o").arg(&binary).arg(&built))?;
    needs_no_library(&binary)?;
    Ok(binary)
}

fn standard_library(target: &str) -> Result<()> {
    let print = ["--print", "target-libdir", "--target", target];
    let libraries = tool::call_quietly(Command::new("rustc").args(print).current_dir(tool::root()))?;
    if Path::new(libraries.trim()).is_dir() {
        return Ok(());
    }
    if tool::find("rustup").is_none() {
        bail!("the Rust standard library for {target} is missing, and so is rustup");
    }
    tool::note(&format!("installing the standard library: rustup target add {target}"));
    let mut rustup = Command::new("rustup");
    tool::call_quietly(rustup.args(["target", "add", target]).current_dir(tool::root())).map(drop)
}

/// No program interpreter and no shared library. `ldd` would run the file to find out.
fn needs_no_library(binary: &Path) -> Result<()> {
    let named = || format!("`{}`", binary.display());
    let data = fs::read(binary).with_context(|| format!("read {}", named()))?;
    let data = data.as_slice();
    let parsed = || format!("parse {}", named());
    let header = elf::FileHeader64::<Endianness>::parse(data).with_context(parsed)?;
    let endian = header.endian().with_context(parsed)?;
    for segment in header.program_headers(endian, data).with_context(parsed)? {
        if segment.p_type(endian) == elf::PT_INTERP {
            bail!("{} has a program interpreter: it is not static", named());
        }
        for entry in segment.dynamic(endian, data).with_context(parsed)?.unwrap_or_default() {
            if entry.tag(endian) == elf::DT_NEEDED {
                bail!("{} needs a shared library: it is not static", named());
            }
        }
    }
    Ok(())
}
