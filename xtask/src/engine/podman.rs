//! How Podman is started: as root, or as a user without any privilege.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Engine, Kind};
use crate::tool;

/// A user that nobody is, without subordinate ids.
const USER: u32 = 54_321;

/// What a user's image layers are: no privilege is needed for it, nor for giving all files to one user.
const STORAGE: &str = "[storage]\ndriver = \"vfs\"\n[storage.options.vfs]\nignore_chown_errors = \"true\"\n";

/// Adds the service to a command that enters the engine's namespace.
pub(super) fn service(engine: &Engine, command: &mut Command) -> Result<()> {
    configure(engine)?;
    if engine.kind == Kind::RootlessPodman {
        for name in ["home", "run", "networks"] {
            let path = engine.path(name);
            fs::create_dir_all(&path).with_context(|| format!("make `{}`", path.display()))?;
            chown(&path, Some(USER), Some(USER)).with_context(|| format!("chown `{}`", path.display()))?;
        }
        let directory = engine.directory.path();
        chown(directory, Some(USER), Some(USER)).context("chown the engine's directory")?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .context("chmod the engine's directory")?;
        fs::write(engine.path("storage.conf"), STORAGE).context("write storage.conf")?;
        command.env("HOME", engine.path("home")).env("XDG_RUNTIME_DIR", engine.path("run"));
        command.env("CONTAINERS_STORAGE_CONF", engine.path("storage.conf")).current_dir(directory);
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        command.arg(tool::find("setpriv").context("`setpriv` is not installed")?);
        command.args([&user, &group, "--clear-groups", "--"]);
        command.arg(tool::find("podman").context("`podman` is not installed")?);
    } else {
        command.arg(tool::find("podman").context("`podman` is not installed")?);
        command.arg("--root").arg(engine.path("data")).arg("--runroot").arg(engine.path("exec"));
        command.arg("--tmpdir").arg(engine.path("tmp"));
    }
    command.env("CONTAINERS_CONF", engine.path("containers.conf"));
    command.args(["system", "service", "--time", "0"]).arg(engine.host());
    Ok(())
}

/// For a machine whose limits cannot be raised, with what an exec session leaves ended soon: at once would be before
/// Podman has told how the session ended.
fn configure(engine: &Engine) -> Result<()> {
    let networks = engine.path("networks");
    fs::create_dir_all(&networks).context("make a directory for networks")?;
    let text = format!(
        "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=20000:20000\"]\n\
         [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\n\
         exit_command_delay = 1\nstop_timeout = 0\n\
         [network]\nnetwork_config_dir = {:?}\n",
        networks.display()
    );
    fs::write(engine.path("containers.conf"), text).context("write containers.conf")
}

/// Ends the process that keeps a user's namespaces between commands.
pub(super) fn end_pause(run: &Path) -> Result<()> {
    let Ok(pid) = fs::read_to_string(run.join("libpod/tmp/pause.pid")) else { return Ok(()) };
    let process: i32 = pid.trim().parse().context("read the id of Podman's pause process")?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    if matches!(name.trim(), "catatonit" | "podman pause" | "podman") {
        kill(Pid::from_raw(process), Signal::SIGKILL).with_context(|| format!("kill process {process}"))?;
    }
    Ok(())
}
