//! Becoming root, for single programs that are already built. Cargo itself never runs as root because of us:
//! it would leave files in target/ that the user can no longer change.

use std::{ffi::OsStr, path::Path, process::Command};

use anyhow::{Result, bail};

use crate::tool;

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether we are root, or may use `sudo`, which may ask for a password now, and then not again for some minutes.
pub(crate) fn can_become_root() -> bool {
    is_root()
        || tool::command("sudo")
            .is_ok_and(|mut sudo| sudo.arg("-v").status().is_ok_and(|status| status.success()))
}

/// A command that runs `program` as root, with `environment` added.
pub(crate) fn command(program: &Path, environment: &[(&str, &OsStr)]) -> Result<Command> {
    if is_root() {
        let mut command = Command::new(program);
        command.envs(environment.iter().copied());
        return Ok(command);
    }
    let Some(sudo) = tool::find("sudo") else {
        bail!("`{}` has to run as root and there is no `sudo`: run this command as root", program.display());
    };
    let mut command = Command::new(sudo);
    // By env(1) too, for a sudoers file that does not let -E keep everything.
    command.args(["-E", "--", "env"]);
    for (name, value) in environment {
        let mut assignment = OsStr::new(name).to_owned();
        assignment.push("=");
        assignment.push(value);
        command.arg(assignment);
    }
    command.arg(program);
    tool::note(&format!("as root: {}", program.display()));
    Ok(command)
}
