//! The daemon that the demo starts, and the commands that the demo gives it.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, mkdtemp},
};
use serde::Deserialize;

use super::{
    access::Access,
    interrupt::{self, Interrupt},
};
use crate::tool;

const SOCKET: &str = "control.sock";
const START_LIMIT: Duration = Duration::from_secs(30);
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The parts of `redirector list --json` that the demo looks at.
#[derive(Debug, Deserialize)]
pub(crate) struct List {
    pub(crate) namespaces: Vec<ListedNamespace>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListedNamespace {
    pub(crate) target: String,
    pub(crate) rules: Vec<ListedRule>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ListedRule {
    pub(crate) name: String,
    pub(crate) counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Counters {
    pub(crate) steered: u64,
    pub(crate) passed: u64,
    pub(crate) rejected: u64,
    pub(crate) unavailable: u64,
}

/// A directory of our own, for the control socket.
struct Directory(PathBuf);

impl Directory {
    fn create() -> Result<Self> {
        let template = env::temp_dir().join("redirector-demo-XXXXXX");
        // Mode 0700, and a name that nobody else has.
        let path = mkdtemp(&template).with_context(|| format!("mkdtemp `{}`", template.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tool::note(&format!("remove `{}`: {error}", self.0.display()));
        }
    }
}

struct Process {
    child: Child,
    /// Ends when the process has closed its stderr.
    log: Option<JoinHandle<()>>,
    stopped: bool,
}

impl Process {
    fn stop(&mut self) -> Result<()> {
        if self.stopped {
            return Ok(());
        }
        self.stopped = true;
        let process = i32::try_from(self.child.id()).context("the process id of the daemon")?;
        // Not reaped yet, so the id is still the daemon's.
        kill(Pid::from_raw(process), Signal::SIGTERM).with_context(|| format!("kill process {process}"))?;
        let status = interrupt::wait_at_most(&mut self.child, STOP_LIMIT)?;
        if status.is_none() {
            interrupt::end_by_force(&mut self.child)?;
        }
        if let Some(log) = self.log.take() {
            drop(log.join());
        }
        match status {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the daemon ended at SIGTERM with {status}"),
            None => bail!("the daemon did not end within {} s of SIGTERM: killed", STOP_LIMIT.as_secs()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tool::note(&format!("{error:#}"));
        }
    }
}

/// A running daemon. The order of the fields is the order of the end: the process before its directory.
pub(crate) struct Daemon {
    process: Process,
    directory: Directory,
    program: PathBuf,
    /// The connections that ended, from the access log.
    pub(crate) connections: Receiver<Access>,
}

impl Daemon {
    /// Starts `program` as a daemon, with these options, and waits until it answers.
    pub(crate) fn start(interrupt: &Interrupt, program: &Path, options: &[&str]) -> Result<Self> {
        let directory = Directory::create()?;
        let mut command = Command::new(program);
        command.arg("run").arg("--socket").arg(directory.0.join(SOCKET)).args(options);
        command.env("RUST_LOG", "warn,redirector::access=debug").env("NO_COLOR", "1");
        command.env_remove("REDIRECTOR_SOCKET").stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = interrupt::spawn(&mut command)?;
        let stderr = child.stderr.take();
        let mut process = Process { child, log: None, stopped: false };
        let (sender, connections) = mpsc::channel();
        process.log = stderr.map(|stderr| thread::spawn(move || read_log(stderr, &sender)));
        let mut daemon = Self { process, directory, program: program.to_owned(), connections };
        interrupt.poll("start of the daemon", START_LIMIT, || {
            daemon.check()?;
            let output = interrupt.output(daemon.command().args(["list", "--json"]), COMMAND_LIMIT)?;
            Ok(output.status.success().then_some(()))
        })?;
        Ok(daemon)
    }

    /// Fails if the daemon has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.process.child.try_wait().context("wait for the daemon")? {
            self.process.stopped = true;
            bail!("the daemon ended by itself: {status}");
        }
        Ok(())
    }

    pub(crate) fn attach(&self, interrupt: &Interrupt, target: &str, matching: &str, to: &str) -> Result<()> {
        let mut command = self.command();
        command.args(["attach", target, "--match", matching, "--to", to]);
        interrupt.call(&mut command, COMMAND_LIMIT).map(drop)
    }

    pub(crate) fn list(&self, interrupt: &Interrupt) -> Result<List> {
        let list = interrupt.call(self.command().args(["list", "--json"]), COMMAND_LIMIT)?;
        serde_json::from_str(&list).with_context(|| format!("parse the list of the daemon: {list}"))
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.0.join(SOCKET)
    }

    /// From now on the access log goes where the rest of the log goes.
    pub(crate) fn show_connections(&mut self) {
        self.connections = mpsc::channel().1;
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.stop()
    }

    /// A command for this daemon.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("REDIRECTOR_SOCKET", self.socket());
        command
    }
}

/// Sends on what the access log says, and passes all other lines to our own stderr.
fn read_log(stderr: ChildStderr, connections: &Sender<Access>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let taken = Access::parse(&line).is_some_and(|access| connections.send(access).is_ok());
        if !taken {
            drop(writeln!(io::stderr(), "{line}"));
        }
    }
}
