//! A minimal Debian of an old release, made by debootstrap once and kept as a tar file.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::tool;

/// The oldest release that Debian still has. Its kernel, 5.10, is older than what redirector needs, but not its C
/// library or its systemd.
pub(super) const SUITE: &str = "bullseye";

/// Unpacks it into `directory`.
pub(super) fn unpack(directory: &Path) -> Result<()> {
    let archive = archive();
    if !archive.is_file() {
        make(directory, &archive)?;
        return Ok(());
    }
    fs::create_dir(directory).with_context(|| format!("create `{}`", directory.display()))?;
    let mut tar = tool::command("tar")?;
    tar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(directory);
    tool::call_quietly(&mut tar).map(drop)
}

fn archive() -> PathBuf {
    tool::root().join(format!("target/tools/debian-{SUITE}.tar"))
}

fn make(directory: &Path, archive: &Path) -> Result<()> {
    let mirror = mirror()?;
    tool::note(&format!("installing Debian {SUITE} (a minute): debootstrap {SUITE} {mirror}"));
    let mut debootstrap = tool::command("debootstrap")?;
    debootstrap.args(["--variant=minbase", "--include=iproute2,systemd", SUITE]).arg(directory).arg(&mirror);
    tool::call_quietly(&mut debootstrap)?;
    let tools = archive.parent().unwrap_or(archive);
    fs::create_dir_all(tools).with_context(|| format!("create `{}`", tools.display()))?;
    // Complete or not there.
    let part = archive.with_extension("part");
    let mut tar = tool::command("tar")?;
    tar.arg("--create").arg("--file").arg(&part).arg("--directory").arg(directory).arg(".");
    tool::call_quietly(&mut tar)?;
    // Not root's: the user removes target/.
    let owner = fs::metadata(tool::root()).with_context(|| format!("stat `{}`", tool::root().display()))?;
    chown(&part, Some(owner.uid()), Some(owner.gid()))
        .with_context(|| format!("chown `{}`", part.display()))?;
    fs::rename(&part, archive).with_context(|| format!("rename `{}`", part.display()))
}

/// The mirror that this machine's own packages come from.
fn mirror() -> Result<String> {
    let mut targets = tool::command("apt-get")?;
    targets.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]);
    let mirrors = tool::call_quietly(targets.arg("Label: Debian"))?;
    match mirrors.lines().next() {
        Some(mirror) => Ok(mirror.to_owned()),
        None => bail!(
            "apt knows no mirror of Debian: its package lists are empty (`apt-get update`) or not Debian's"
        ),
    }
}
