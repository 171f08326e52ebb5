//! The tar file. The same commit gives the same bytes: names are sorted, times are the commit's, nobody owns a file.

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::{VERSION, binary, directory, root};
use crate::tool;

/// Seconds since 1970: `SOURCE_DATE_EPOCH` (reproducible-builds.org), else the time of the commit.
pub(super) fn epoch() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let mut git = Command::new("git");
            git.args(["log", "-1", "--format=%ct"]).current_dir(tool::root());
            tool::call_quietly(&mut git).context("without SOURCE_DATE_EPOCH the time is the commit's")?
        }
    };
    text.trim().parse().with_context(|| format!("`{}` is not a number of seconds", text.trim()))
}

/// Packs the tree; in it everything is below one directory.
pub(super) fn pack(epoch: u64) -> Result<PathBuf> {
    let name = format!("redirector-{VERSION}-{}", binary::target());
    let archive = directory().join(format!("{name}.tar.gz"));
    let mut tar = tool::command("tar")?;
    tar.args(["--sort=name", "--format=ustar", "--owner=0", "--group=0", "--numeric-owner"])
        .args(["--mode=u=rwX,go=rX", "--use-compress-program=gzip -9 --no-name"])
        .arg(format!("--mtime=@{epoch}"))
        .arg(format!("--transform=s,^\\.,{name},"))
        .arg("--create")
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(root())
        .arg(".");
    tool::call_quietly(&mut tar)?;
    Ok(archive)
}
