//! A booted system: systemd-nspawn, with every capability there is, and a network of its own.

use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{System, notify::Notify};
use crate::tool;

/// A guard against hanging, in seconds.
const COMMAND_LIMIT: &str = "60";

pub(super) struct Machine {
    nspawn: Child,
    /// Its process 1, as this process sees it.
    leader: String,
}

impl Machine {
    /// Boots it and waits until its systemd says that it is up.
    pub(super) fn boot(system: &System) -> Result<Self> {
        let notify = Notify::bind(&system.changed.with_file_name("notify"))?;
        let mut nspawn = tool::command("systemd-nspawn")?;
        nspawn
            .arg("--directory")
            .arg(&system.root)
            // Without the host's systemd, which may not be there.
            .args(["--quiet", "--register=no", "--keep-unit", "--notify-ready=yes"])
            // What the daemon may not do is to be said by its unit.
            .args(["--private-network", "--capability=all", "--system-call-filter=@known"])
            .args(["--resolv-conf=off", "--console=pipe", "--boot", "systemd.unit=basic.target"])
            .args(["systemd.show_status=no", "systemd.firstboot=no"])
            .env("NOTIFY_SOCKET", &notify.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let nspawn = nspawn.spawn().context("start systemd-nspawn")?;
        let mut machine = Self { nspawn, leader: String::new() };
        let lines = notify.wait_until_ready().with_context(|| format!("boot {}", system.name))?;
        let leader = lines.iter().find_map(|line| line.strip_prefix("X_NSPAWN_LEADER_PID="));
        leader.context("systemd-nspawn named no process")?.clone_into(&mut machine.leader);
        Ok(machine)
    }

    /// A command that runs this line inside, by bash.
    pub(super) fn command(&self, line: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.leader,
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--net",
            "--root",
            "--wd",
        ]);
        command.args(["timeout", COMMAND_LIMIT, "bash", "-c", line]);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    /// Runs it, and fails if it does. Returns its stdout.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let output = self.command(line).output().with_context(|| format!("start `{line}`"))?;
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if !output.status.success() {
            bail!("`{line}` failed: {}: {}", output.status, [stdout.trim(), stderr.trim()].join("; "));
        }
        Ok(stdout)
    }

    /// Runs it, expects that it fails, and returns its stderr.
    pub(super) fn refuses(&self, line: &str) -> Result<String> {
        let output = self.command(line).output().with_context(|| format!("start `{line}`"))?;
        if output.status.success() {
            bail!("`{line}` should fail: {}", String::from_utf8_lossy(&output.stdout).trim());
        }
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// What the service said, for the report of a failure.
    pub(super) fn journal(&self) -> String {
        let read =
            self.run("systemctl status --no-pager --full redirector; journalctl --no-pager -n 60; true");
        read.unwrap_or_else(|error| format!("{error:#}"))
    }

    pub(super) fn power_off(mut self) -> Result<()> {
        // This command may be among what goes down.
        self.command("systemctl poweroff").output().context("start `systemctl poweroff`")?;
        let status = self.nspawn.wait().context("wait for systemd-nspawn")?;
        if !status.success() {
            bail!("systemd-nspawn failed: {status}");
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Without systemd-nspawn its system would go on. Both may have ended by themselves.
        if let Ok(leader) = self.leader.parse()
            && let Err(error) = kill(Pid::from_raw(leader), Signal::SIGKILL)
            && error != Errno::ESRCH
        {
            tool::note(&format!("kill process {leader}: {error}"));
        }
        drop(self.nspawn.kill());
        drop(self.nspawn.wait());
    }
}
