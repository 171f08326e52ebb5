//! Builds the kernel program, or takes a ready one from `REDIRECTOR_BPF_OBJECT`.

use std::{env, fs, path::PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use aya_build::{Package, Toolchain};
use redirector_ebpf::ABI_MARK;

/// The toolchain of `rust-toolchain.toml`: one for both sides. `RUSTC_BOOTSTRAP` lets it build `core` for BPF.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=REDIRECTOR_BPF_OBJECT");
    let object = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| anyhow!("OUT_DIR is not set"))?)
        .join("redirector-ebpf");
    if let Some(ready) = env::var_os("REDIRECTOR_BPF_OBJECT") {
        let ready = PathBuf::from(ready);
        println!("cargo:rerun-if-changed={}", ready.display());
        let named = || format!("REDIRECTOR_BPF_OBJECT `{}`", ready.display());
        let bytes = fs::read(&ready).with_context(|| format!("read {}", named()))?;
        if !bytes.windows(ABI_MARK.len()).any(|window| window == ABI_MARK) {
            bail!("{}: not a kernel object of this version of redirector", named());
        }
        fs::write(&object, bytes).with_context(|| format!("write `{}`", object.display()))?;
        return Ok(());
    }
    let manifest = env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?;
    let root_dir = format!("{manifest}/../redirector-ebpf");
    // SAFETY: a build script has one thread here, nobody reads the environment meanwhile.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    aya_build::build_ebpf(
        [Package {
            name: "redirector-ebpf",
            root_dir: &root_dir,
            no_default_features: false,
            features: &["program"],
        }],
        Toolchain::Custom(TOOLCHAIN),
    )
    .context("build the kernel program: `cargo xtask build` installs what it needs (rust-src, bpf-linker)")
}
