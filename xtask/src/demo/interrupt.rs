//! Ctrl-C, SIGTERM and SIGHUP as values that the demo looks at, so that leaving always goes through its guards.
//! Also every wait of the demo: each has a limit, and each ends early at a signal.

use std::{
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use signal_hook::{
    consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::Signals,
};

use crate::tool;

/// How often a wait looks at what it waits for.
const STEP: Duration = Duration::from_millis(20);

pub(crate) struct Interrupt {
    requested: Arc<AtomicBool>,
    signals: Signals,
}

impl Interrupt {
    pub(crate) fn install() -> Result<Self> {
        let requested = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            flag::register(signal, Arc::clone(&requested)).context("register a signal handler")?;
        }
        // After the flag: what is in `signals` is in the flag too. SIGCHLD wakes `wait_for` when a child ends.
        let signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD]).context("register a signal handler")?;
        Ok(Self { requested, signals })
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.requested.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Waits for a signal that asks us to end, as long as `still_well` finds nothing to complain about.
    pub(crate) fn wait_for(&mut self, mut still_well: impl FnMut() -> Result<()>) -> Result<()> {
        while !self.requested.load(Ordering::Relaxed) {
            still_well()?;
            self.signals.wait().for_each(drop);
        }
        Ok(())
    }

    /// Calls `attempt` until it gives something, for at most `limit`.
    pub(crate) fn poll<T>(
        &self,
        what: &str,
        limit: Duration,
        mut attempt: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            self.check()?;
            if let Some(value) = attempt()? {
                return Ok(value);
            }
            if start.elapsed() > limit {
                bail!("{what}: nothing after {} s", limit.as_secs());
            }
            thread::sleep(STEP);
        }
    }

    /// The next value of `receiver`, within `limit`.
    pub(crate) fn receive<T>(&self, what: &str, limit: Duration, receiver: &Receiver<T>) -> Result<T> {
        self.poll(what, limit, || match receiver.recv_timeout(STEP) {
            Ok(value) => Ok(Some(value)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("{what}: its sender ended"),
        })
    }

    /// Runs `command` for at most `limit` and returns what it wrote, which has to fit into a pipe.
    pub(crate) fn output(&self, command: &mut Command, limit: Duration) -> Result<Output> {
        let shown = tool::show(command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = spawn(command)?;
        let ended =
            self.poll(&shown, limit, || child.try_wait().with_context(|| format!("wait for {shown}")));
        if let Err(error) = ended {
            end_by_force(&mut child)?;
            return Err(error);
        }
        child.wait_with_output().with_context(|| format!("read the output of {shown}"))
    }

    /// As `output`, and fails if the command does. Returns its stdout.
    pub(crate) fn call(&self, command: &mut Command, limit: Duration) -> Result<String> {
        let output = self.output(command, limit)?;
        if !output.status.success() {
            let cause = String::from_utf8_lossy(&output.stderr);
            bail!("{} failed: {}: {}", tool::show(command), output.status, cause.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Starts `command` in a process group of its own: a terminal sends Ctrl-C to whole groups, and it is us who
/// end what we started, in order.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    command.process_group(0).spawn().with_context(|| format!("start {}", tool::show(command)))
}

/// Waits for `child` whatever signals come: for clean-up. None after `limit`.
pub(crate) fn wait_at_most(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().context("wait for a child")? {
            return Ok(Some(status));
        }
        thread::sleep(STEP);
    }
    Ok(None)
}

pub(crate) fn end_by_force(child: &mut Child) -> Result<()> {
    child.kill().with_context(|| format!("kill process {}", child.id()))?;
    child.wait().with_context(|| format!("wait for process {}", child.id())).map(drop)
}
