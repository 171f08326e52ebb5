//! Builds the kernel program, or takes a ready one from `REDIRECTOR_BPF_OBJECT`, and finds out what `--version` says.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya_build::{Package, Toolchain};
use redirector_ebpf::ABI_MARK;

/// The toolchain of `rust-toolchain.toml`: one for both sides. `RUSTC_BOOTSTRAP` lets it build `core` for BPF.
const TOOLCHAIN: &str = "1.95.0";

fn main() -> Result<()> {
    build_id()?;
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
    // Each line of the cargo that builds the program becomes a warning: let it say what is wrong, and no more.
    for (name, value) in [("RUSTC_BOOTSTRAP", "1"), ("CARGO_TERM_QUIET", "true")] {
        // SAFETY: a build script has one thread here, nobody reads the environment meanwhile.
        unsafe { env::set_var(name, value) };
    }
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

/// What the binary is made of, from the root of the repository.
const INPUTS: [&str; 5] =
    ["redirector", "redirector-ebpf", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml"];

/// Sets `REDIRECTOR_BUILD_ID`: ` (COMMIT)` or ` (COMMIT-dirty)`, or nothing where this is no git checkout; and
/// `REDIRECTOR_ABI`. No time is in it, and COMMIT is the last one that changed one of [`INPUTS`]: equal inputs make
/// equal binaries, and a commit to anything else makes nothing to be built again.
fn build_id() -> Result<()> {
    let hash: [u8; 8] = ABI_MARK[16..].try_into().context("the hash of ABI_MARK")?;
    println!("cargo:rustc-env=REDIRECTOR_ABI={:016x}", u64::from_le_bytes(hash));
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?).join("..");
    let root = root.canonicalize().context("find the root of the repository")?;
    for input in INPUTS.map(|input| root.join(input)).iter().filter(|input| input.exists()) {
        println!("cargo:rerun-if-changed={}", input.display());
    }
    let id = commit(&root).unwrap_or_default();
    println!("cargo:rustc-env=REDIRECTOR_BUILD_ID={id}");
    Ok(())
}

/// `None` without git, without a checkout, and where the checkout is somebody else's around an unpacked archive.
fn commit(root: &Path) -> Option<String> {
    if Path::new(&git(root, &["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != root {
        return None;
    }
    let of = |arguments: &[&str]| git(root, &[arguments, &["--"], &INPUTS].concat());
    let commit = of(&["log", "-1", "--format=%H"])?;
    let short = commit.get(..12)?;
    if of(&["status", "--porcelain"])?.is_empty() {
        return Some(format!(" ({short})"));
    }
    // When the changes are committed no file changes but this one.
    let log = root.join(git(root, &["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    Some(format!(" ({short}-dirty)"))
}

/// What git says, where it succeeds. It takes no locks: somebody may be at work in the checkout.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // A hook that builds has them, of whichever repository.
    git.env_remove("GIT_DIR").env_remove("GIT_WORK_TREE").env_remove("GIT_INDEX_FILE");
    let output = git.arg("--no-optional-locks").args(arguments).current_dir(root).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
