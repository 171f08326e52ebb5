//! What building the kernel program needs and the pinned toolchain does not bring by itself: the source of
//! `core`, and bpf-linker. Both belong to the user. What needs root is in `prepare`.

use std::{env, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{crates, tool};

/// Links with the LLVM of the pinned toolchain. Later versions need an LLVM of the system.
const BPF_LINKER: &str = "0.10.4";

/// Everything that building `redirector` needs.
pub(crate) fn for_build() -> Result<()> {
    if env::var_os("REDIRECTOR_BPF_OBJECT").is_some() {
        return Ok(());
    }
    rust_src()?;
    crates::ensure("bpf-linker", BPF_LINKER)
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
