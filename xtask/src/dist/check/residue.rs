//! What is left after the purge: nothing.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::{Machine, System};

/// Purges the package of a stopped daemon, and looks.
pub(super) fn purge(machine: &Machine, system: &System) -> Result<()> {
    let installed = machine.run("dpkg --listfiles redirector")?;
    ensure!(installed.lines().any(|file| file == "/usr/bin/redirector"), "dpkg installed {installed}");
    machine.run("dpkg --purge redirector")?;
    for file in installed.lines().filter(|file| file.contains("redirector")) {
        machine.refuses(&format!("ls -d {file}")).context("after the purge")?;
    }
    machine.refuses("ls -d /run/redirector").context("after the purge")?;
    machine.refuses("pgrep --exact redirector").context("after the purge")?;
    let namespaces = machine.run("ip netns list")?;
    let mut names: Vec<_> = namespaces.split_whitespace().collect();
    names.sort_unstable();
    ensure!(names == ["client", "server"], "the namespaces are the user's: {namespaces}");
    // Nobody keeps one of them alive either.
    machine.run("ip netns delete server && ip netns delete client")?;
    let units = machine
        .run("systemctl list-unit-files --no-legend 'redirector*' || true; find /run -name '*redirector*'")?;
    ensure!(units.is_empty(), "after the purge: {units}");
    let mut left = Vec::new();
    named_after_us(&system.changed, &mut left)?;
    ensure!(left.is_empty(), "after the purge: {}", left.join(", "));
    Ok(())
}

/// Files of our name in what was changed. What is not there any more is a character device (overlayfs).
fn named_after_us(directory: &Path, left: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("read `{}`", directory.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("read `{}`", directory.display()))?;
        let kind = entry.file_type().with_context(|| format!("stat `{}`", entry.path().display()))?;
        if entry.file_name().to_string_lossy().contains("redirector")
            && (kind.is_dir() || kind.is_file() || kind.is_symlink())
        {
            left.push(entry.path().display().to_string());
        }
        if kind.is_dir() {
            named_after_us(&entry.path(), left)?;
        }
    }
    Ok(())
}
