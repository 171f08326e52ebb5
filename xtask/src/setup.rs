//! What building the kernel program needs and the pinned toolchain does not bring by itself: the source of
//! `core`, and bpf-linker. Both belong to the user. What needs root is in `prepare`.

use std::{env, path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, tool};

/// Links with the LLVM of the pinned toolchain. Later versions need an LLVM of the system.
const BPF_LINKER: &str = "0.10.4";

/// Everything that building `redirector` needs.
pub(crate) fn for_build() -> Result<()> {
    if env::var_os("REDIRECTOR_BPF_OBJECT").is_some() {
        return Ok(());
    }
    rust_src()?;
    bpf_linker()
}

/// The source of the standard library, from which `core` is built for BPF.
pub(crate) fn rust_src() -> Result<()> {
    let sysroot =
        tool::call_quietly(Command::new("rustc").args(["--print", "sysroot"]).current_dir(tool::root()))?;
    if Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir() {
        return Ok(());
    }
    if tool::find("rustup").is_none() {
        bail!("the source of the Rust standard library is missing in `{}`, and so is rustup", sysroot.trim());
    }
    tool::note("installing rust-src: rustup component add rust-src");
    tool::call_quietly(
        Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(tool::root()),
    )
    .map(drop)
}

fn bpf_linker() -> Result<()> {
    let installed =
        tool::command("bpf-linker").and_then(|mut linker| tool::call_quietly(linker.arg("--version")));
    if installed.is_ok_and(|version| version.split_whitespace().last() == Some(BPF_LINKER)) {
        return Ok(());
    }
    let package = format!("bpf-linker@{BPF_LINKER}");
    tool::note(&format!("installing {package} (some minutes): cargo install --locked {package}"));
    tool::call(&mut cargo::command(&["install", "--locked", "--quiet", &package]))
        .with_context(|| format!("install {package}"))?;
    if tool::find("bpf-linker").is_none() {
        bail!("bpf-linker is installed but not found: add cargo's bin directory to PATH");
    }
    Ok(())
}
