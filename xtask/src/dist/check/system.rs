//! Systems to boot: a directory tree below an overlay, so that what is changed is in one place and goes away.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use super::debian;
use crate::tool;

/// A directory in memory. It goes with this, and with the mount namespace.
pub(super) struct Scratch(TempDir);

impl Scratch {
    pub(super) fn new() -> Result<Self> {
        let scratch = Self(tempfile::tempdir().context("make a temporary directory")?);
        mount_tmpfs(scratch.path())?;
        Ok(scratch)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = unmount(self.path()) {
            tool::note(&format!("{error:#}"));
        }
    }
}

/// A root file system.
pub(super) struct System {
    pub(super) name: String,
    /// Where it is mounted.
    pub(super) root: PathBuf,
    /// Everything that is not as it was.
    pub(super) changed: PathBuf,
}

impl System {
    /// The machine that this runs on.
    pub(super) fn copy_of_this(scratch: &Path) -> Result<Self> {
        Self::over(Path::new("/"), scratch, "a copy of this system")
    }

    /// The oldest Debian that the package is for.
    pub(super) fn old(scratch: &Path) -> Result<Self> {
        let lower = scratch.join(debian::SUITE);
        debian::unpack(&lower)?;
        Self::over(&lower, scratch, &format!("Debian {}", debian::SUITE))
    }

    fn over(lower: &Path, scratch: &Path, name: &str) -> Result<Self> {
        let directory = scratch.join(name.replace(' ', "-"));
        let [root, changed, work] = ["root", "changed", "work"].map(|name| directory.join(name));
        for directory in [&root, &changed, &work] {
            fs::create_dir_all(directory).with_context(|| format!("create `{}`", directory.display()))?;
        }
        let layers = [
            format!("lowerdir={}", lower.display()),
            format!("upperdir={}", changed.display()),
            format!("workdir={}", work.display()),
        ];
        mount(Some("overlay"), &root, Some("overlay"), MsFlags::empty(), Some(layers.join(",").as_str()))
            .with_context(|| format!("mount overlay `{}`", root.display()))?;
        let system = Self { name: name.to_owned(), root, changed };
        // One of its own, and no questions about it.
        system.write("etc/machine-id", "uninitialized\n")?;
        Ok(system)
    }

    pub(super) fn write(&self, path: &str, contents: impl AsRef<[u8]>) -> Result<()> {
        let path = self.root.join(path);
        fs::write(&path, contents).with_context(|| format!("write `{}`", path.display()))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.root) {
            tool::note(&format!("{error:#}"));
        }
    }
}

pub(super) fn mount_tmpfs(at: &Path) -> Result<()> {
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .with_context(|| format!("mount tmpfs `{}`", at.display()))
}

/// What is mounted below it later is mounted in copies of this mount namespace too.
pub(super) fn share(at: &Path) -> Result<()> {
    mount(None::<&str>, at, None::<&str>, MsFlags::MS_SHARED, None::<&str>)
        .with_context(|| format!("share the mount `{}`", at.display()))
}

pub(super) fn unmount(at: &Path) -> Result<()> {
    umount2(at, MntFlags::MNT_DETACH).with_context(|| format!("umount `{}`", at.display()))
}
