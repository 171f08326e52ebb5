//! The daemon in the initial PID namespace, where it can learn that a namespace has died, with the capabilities of the
//! unit and in a mount namespace as systemd makes one: mounts of the host come and go there, those made there stay there.
//!
//! A booted system of systemd-nspawn is in a PID namespace of its own, so this cannot be seen there.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;

use super::{notify::Notify, system, usage};
use crate::{dist::tree, tool};

/// The daemon, or a program: killed when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A program of another user has listeners. When the namespace goes, the daemon ends it and what it started.
pub(super) fn check(scratch: &Path, binary: &Path) -> Result<()> {
    // Names of our own, in this mount namespace only; its mounts go on to the daemon's.
    fs::create_dir_all("/run/netns").context("create `/run/netns`")?;
    system::mount_tmpfs(Path::new("/run/netns"))?;
    system::share(Path::new("/run/netns"))?;
    let ip = |arguments: &[&str]| tool::call_quietly(tool::command("ip")?.args(arguments));
    let socket = scratch.join("control.sock");
    let notify = Notify::bind(&scratch.join("notify"))?;
    let mut daemon = until_we_end("unshare")?;
    daemon.args(["--mount", "--propagation", "slave", "setpriv", "--no-new-privs", "--bounding-set"]);
    daemon.arg(bounding_set()?).arg(binary).arg("run").arg("--socket").arg(&socket);
    let log = fs::File::create(scratch.join("log")).context("create the log of the daemon")?;
    daemon.env("NOTIFY_SOCKET", &notify.path).stdin(Stdio::null()).stderr(log);
    let daemon = Running(daemon.spawn().context("start the daemon")?);
    notify.wait_until_ready()?;
    ip(&["netns", "add", "confined"])?;

    let redirector = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.arg("--socket").arg(&socket).args(arguments).stdin(Stdio::null());
        command
    };
    // The guard against hanging: what goes on for so long, says so.
    let shell = "(sleep 60 && echo late) & echo ready; wait";
    let mut exec = redirector(&["exec", "netns:confined", "--match", "tcp:80", "--user", "nobody", "--"]);
    exec.args(["bash", "-c", shell]).stdout(Stdio::piped());
    let mut exec = Running(exec.spawn().context("start `redirector exec`")?);
    let mut said = String::new();
    let stdout = exec.0.stdout.take().context("take the stdout of `redirector exec`")?;
    let mut stdout = BufReader::new(stdout);
    stdout.read_line(&mut said).context("read the stdout of `redirector exec`")?;
    ensure!(said == "ready\n", "the program said `{said}`");
    ip(&["netns", "delete", "confined"])?;
    let log = || fs::read_to_string(scratch.join("log")).unwrap_or_default();
    // The other end of the pipe is the worker's too: the end of the file is its end.
    let more = stdout.read_line(&mut said).context("wait for the worker's end")?;
    ensure!(more == 0, "a process goes on after its namespace: {}", log());
    let status = exec.0.wait().context("wait for `redirector exec`")?;
    ensure!(status.signal() == Some(Signal::SIGTERM as i32), "the program ended with {status}: {}", log());
    let list = tool::call_quietly(&mut redirector(&["list", "--json"]))?;
    ensure!(usage::namespaces(&list)?.is_empty(), "the namespace is gone: {list}{}", log());
    drop(daemon);
    system::unmount(Path::new("/run/netns"))
}

/// What `setpriv` understands, of `CapabilityBoundingSet=` of the unit.
fn bounding_set() -> Result<String> {
    let unit = tree::unit();
    let text = fs::read_to_string(&unit).with_context(|| format!("read `{}`", unit.display()))?;
    let names = text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = names.context("the unit has no CapabilityBoundingSet=")?.split(' ');
    let names = names.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    Ok(format!("-all{}", names.collect::<String>()))
}

/// A command that is killed when the thread that starts it ends, in whatever way.
fn until_we_end(program: &str) -> Result<Command> {
    let mut command = tool::command("setpriv")?;
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    Ok(command)
}
