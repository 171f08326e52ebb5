//! The files that belong to the binary, each where it belongs below `/usr`: the tar file and the Debian package are
//! made of the same tree.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::{root, write};
use crate::tool;

const BINARY: &str = "bin/redirector";
const UNIT: &str = "lib/systemd/system/redirector.service";
const DOCUMENTATION: &str = "share/doc/redirector";
/// With the section of each page behind it.
const MANUAL: &str = "share/man/man";

/// Where each shell looks for completions.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "share/bash-completion/completions/redirector"),
    ("zsh", "share/zsh/site-functions/_redirector"),
    ("fish", "share/fish/vendor_completions.d/redirector.fish"),
];

pub(super) fn unit() -> PathBuf {
    root().join(UNIT)
}

/// Makes the tree anew.
pub(super) fn lay_out(binary: &Path) -> Result<()> {
    match fs::remove_dir_all(root()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.with_context(|| format!("remove `{}`", root().display()))?,
    }
    copy(binary, BINARY)?;
    copy(&tool::root().join("packaging/redirector.service"), UNIT)?;
    for file in ["README.md", "LICENSE-APACHE", "LICENSE-MIT", "docs/redirector.schema.json"] {
        copy(&tool::root().join(file), &format!("{DOCUMENTATION}/{file}"))?;
    }
    copy_all("docs", "md")?;
    copy_all("docs/examples", "toml")?;
    write_by_itself(binary)
}

/// Every file of a folder whose name ends so.
fn copy_all(folder: &str, extension: &str) -> Result<()> {
    for path in files(&tool::root().join(folder))? {
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|one| one == extension))
        {
            copy(&path, &format!("{DOCUMENTATION}/{folder}/{}", name.display()))?;
        }
    }
    Ok(())
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.with_context(|| format!("list `{}`", folder.display()))
}

/// What the binary writes: manual pages and completions.
fn write_by_itself(binary: &Path) -> Result<()> {
    let written = tempfile::tempdir().context("make a temporary directory")?;
    tool::call_quietly(Command::new(binary).arg("man").arg(written.path()))?;
    for entry in
        fs::read_dir(written.path()).with_context(|| format!("list `{}`", written.path().display()))?
    {
        let path = entry?.path();
        let (Some(name), Some(section)) = (path.file_name(), path.extension()) else { continue };
        copy(&path, &format!("{MANUAL}{}/{}", section.display(), name.display()))?;
    }
    for (shell, place) in COMPLETIONS {
        let script = tool::call_quietly(Command::new(binary).args(["completions", shell]))?;
        let place = root().join(place);
        create_directory(place.parent().unwrap_or(&place))?;
        write(&place, script)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &str) -> Result<()> {
    let to = root().join(to);
    create_directory(to.parent().unwrap_or(&to))?;
    let copied = fs::copy(from, &to);
    copied.with_context(|| format!("copy `{}` to `{}`", from.display(), to.display())).map(drop)
}

fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("create `{}`", path.display()))
}
