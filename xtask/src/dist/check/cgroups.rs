//! systemd-nspawn, where it has no unit, leaves its two control groups behind.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::tool;

/// Removes them, in each hierarchy, when no other system is in them.
pub(super) fn remove() -> Result<()> {
    let own = fs::read_to_string("/proc/self/cgroup").context("read `/proc/self/cgroup`")?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("read `/proc/self/mounts`")?;
    let paths: Vec<_> = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        fields.next()?.starts_with("cgroup").then_some(place)
    });
    for hierarchy in hierarchies {
        for path in &paths {
            for name in ["payload", "supervisor"] {
                let group: PathBuf = format!("{hierarchy}{path}/{name}").into();
                if let Err(error) = remove_tree(&group) {
                    tool::note(&format!("remove the control group `{}`: {error}", group.display()));
                }
            }
        }
    }
    Ok(())
}

/// A control group's files are the kernel's: its directory can be removed with them in it.
fn remove_tree(group: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}
