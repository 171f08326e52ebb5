//! The process of an engine.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{demo::interrupt, tool};

const STOP_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct Process(Child);

impl Process {
    pub(super) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("make `{}`", log.display()))?;
        let also = log.try_clone().context("dup")?;
        command.stdin(Stdio::null()).stdout(log).stderr(also);
        Ok(Self(interrupt::spawn(command)?))
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.0.try_wait().context("wait for the container engine")
    }

    pub(super) fn end(mut self, how: Signal) -> Result<()> {
        self.end_by(how)
    }

    fn end_by(&mut self, how: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let process = i32::try_from(self.0.id()).context("the process id of the engine")?;
        // Not reaped yet, so the id is still the engine's.
        kill(Pid::from_raw(process), how).with_context(|| format!("kill process {process}"))?;
        if interrupt::wait_at_most(&mut self.0, STOP_LIMIT)?.is_none() {
            interrupt::end_by_force(&mut self.0)?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end_by(Signal::SIGTERM) {
            tool::note(&format!("{error:#}"));
        }
    }
}
