//! A container engine of our own, for the demo and the tests: its data, its socket and its network namespace are
//! nobody else's, and all of it goes when it ends.
//!
//! Both are spoken to by Docker's client, which Podman's service understands.

mod image;
mod podman;
mod process;
pub(crate) mod serve;

use std::{
    ffi::OsStr,
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::mount::{MntFlags, umount2};
use tempfile::TempDir;

use self::process::{Process, Scope};
use crate::{demo::interrupt::Interrupt, tool};

pub(crate) use self::image::IMAGE;

/// Until an engine answers, and until a command of its client has ended.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Docker,
    Podman,
    /// Of a user without any privilege.
    RootlessPodman,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman | Self::RootlessPodman => "podman",
        })
    }
}

/// A running engine. The order of the fields is the order of the end.
pub(crate) struct Engine {
    pub(crate) kind: Kind,
    process: Option<Process>,
    netns: Netns,
    directory: TempDir,
}

impl Engine {
    pub(crate) fn start(interrupt: &Interrupt, kind: Kind) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("rd-engine-").tempdir().context("make a directory")?;
        let netns = Netns::create(&format!("rd-{kind}-{}", std::process::id()))?;
        let mut engine = Self { kind, process: None, netns, directory };
        engine.start_process(interrupt)?;
        image::import(interrupt, &engine)?;
        Ok(engine)
    }

    /// Starts the engine's process again, on what it had before.
    pub(crate) fn start_process(&mut self, interrupt: &Interrupt) -> Result<()> {
        let mut command = self.netns.command()?;
        match self.kind {
            Kind::Docker => {
                self.wait_for_containerd(interrupt)?;
                command.arg(tool::find("dockerd").context("`dockerd` is not installed")?);
                command.arg("--data-root").arg(self.path("data")).arg("--exec-root").arg(self.path("exec"));
                command.arg("--pidfile").arg(self.path("pid")).args(["--log-level", "error"]);
                command.arg("--host").arg(self.host());
            }
            Kind::Podman | Kind::RootlessPodman => podman::service(self, &mut command)?,
        }
        // A user's Podman is two processes: one of them is in the user namespace.
        let scope = if self.kind == Kind::RootlessPodman { Scope::Group } else { Scope::Process };
        self.process = Some(Process::start(&mut command, scope, &self.path("log"))?);
        interrupt.poll("start of the container engine", LIMIT, || {
            if let Some(status) = self.process.as_mut().map(Process::ended).transpose()?.flatten() {
                let log = fs::read_to_string(self.path("log")).unwrap_or_default();
                bail!("{} ended by itself: {status}: {log}", self.kind);
            }
            let mut version = self.client()?;
            version.args(["version", "--format", "{{.Server.Version}}"]);
            Ok(interrupt.output(&mut version, LIMIT)?.status.success().then_some(()))
        })
    }

    /// Ends the engine's process; `how` is how it is told.
    pub(crate) fn stop_process(&mut self, how: nix::sys::signal::Signal) -> Result<()> {
        match self.process.take() {
            Some(process) => process.end(how),
            None => Ok(()),
        }
    }

    /// A dockerd that was killed leaves the id of its containerd, and the next one takes even a zombie for a
    /// containerd that is starting.
    fn wait_for_containerd(&self, interrupt: &Interrupt) -> Result<()> {
        let Ok(before) = fs::read_to_string(self.path("exec/containerd/containerd.pid")) else {
            return Ok(());
        };
        let process = Path::new("/proc").join(before.trim());
        let gone = || Ok((!process.exists()).then_some(()));
        interrupt.poll("end of the containerd before", LIMIT, gone)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("engine.sock")
    }

    /// As `DOCKER_HOST` has it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The namespace that the engine is in, and its bridge.
    pub(crate) fn netns(&self) -> &Path {
        &self.netns.path
    }

    pub(crate) fn netns_inode(&self) -> Result<u64> {
        Ok(fs::metadata(&self.netns.path).context("stat the namespace of the engine")?.ino())
    }

    /// A command that runs in the engine's namespace.
    pub(crate) fn inside(&self, program: &OsStr) -> Result<Command> {
        let mut command = self.netns.command()?;
        command.arg(program);
        Ok(command)
    }

    /// Docker's client for this engine.
    pub(crate) fn client(&self) -> Result<Command> {
        let mut command = tool::command("docker")?;
        command.env("DOCKER_HOST", self.host()).env("DOCKER_CONFIG", self.directory.path());
        Ok(command)
    }

    /// What the client says.
    pub(crate) fn call(&self, interrupt: &Interrupt, arguments: &[&str]) -> Result<String> {
        let said = interrupt.call(self.client()?.args(arguments), LIMIT)?;
        Ok(said.trim().to_owned())
    }

    /// One that others depend on goes after them.
    fn remove_containers(&self) -> Result<()> {
        let mut before = usize::MAX;
        loop {
            let containers = tool::call_quietly(self.client()?.args(["ps", "--all", "--quiet"]))?;
            let containers: Vec<_> = containers.split_whitespace().collect();
            if containers.is_empty() {
                return Ok(());
            }
            let remove = ["rm", "--force", "--volumes"];
            let removed = tool::call_quietly(self.client()?.args(remove).args(&containers)).map(drop);
            if containers.len() >= before {
                return removed;
            }
            before = containers.len();
        }
    }

    /// Podman's monitors of containers and exec sessions outlive it, and would make our directory again.
    fn wait_for_monitors(&self) -> Result<()> {
        let ours = self.directory.path().as_os_str().as_encoded_bytes();
        let is_ours = |process: &Path| {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            command.windows(ours.len()).any(|part| part == ours)
        };
        for process in fs::read_dir("/proc").context("read /proc")?.map_while(Result::ok) {
            let begin = Instant::now();
            while is_ours(&process.path()) {
                if begin.elapsed() > LIMIT {
                    bail!("process {} does not end", process.file_name().display());
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// What is mounted below our directory would keep it from being removed.
    fn unmount(&self) -> Result<()> {
        let table = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
        let ours = self.directory.path();
        let mounts = table.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
        let mut mounts: Vec<_> = mounts.filter(|path| path.starts_with(ours)).collect();
        mounts.sort_unstable();
        for path in mounts.into_iter().rev() {
            umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmount `{}`", path.display()))?;
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let runs =
            self.process.as_mut().is_some_and(|process| process.ended().is_ok_and(|ended| ended.is_none()));
        let results = [
            if runs { self.remove_containers() } else { Ok(()) },
            self.stop_process(nix::sys::signal::Signal::SIGTERM),
            podman::end_pause(&self.path("run")),
            self.wait_for_monitors(),
            self.unmount(),
        ];
        for result in results {
            if let Err(error) = result {
                tool::note(&format!("{}: {error:#}", self.kind));
            }
        }
    }
}

/// A network namespace with a name that is deleted in the end.
struct Netns {
    name: String,
    path: PathBuf,
}

impl Netns {
    fn create(name: &str) -> Result<Self> {
        tool::call_quietly(tool::command("ip")?.args(["netns", "add", name]))?;
        let netns = Self { name: name.to_owned(), path: Path::new("/run/netns").join(name) };
        tool::call_quietly(tool::command("ip")?.args(["-n", name, "link", "set", "lo", "up"]))?;
        Ok(netns)
    }

    /// A command that takes the program and its arguments. Mounts are ours: `ip netns exec` would hide /sys.
    fn command(&self) -> Result<Command> {
        let mut command = tool::command("nsenter")?;
        command.arg(format!("--net={}", self.path.display())).arg("--");
        Ok(command)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let delete = tool::command("ip")
            .and_then(|mut ip| tool::call_quietly(ip.args(["netns", "delete", &self.name])));
        if let Err(error) = delete {
            tool::note(&format!("{error:#}"));
        }
    }
}
