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

pub(super) struct Process {
    child: Child,
    scope: Scope,
}

/// Who is told to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The process, which ends its children.
    Process,
    /// All that it has started and that has not left its group.
    Group,
}

impl Process {
    pub(super) fn start(command: &mut Command, scope: Scope, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("make `{}`", log.display()))?;
        let also = log.try_clone().context("dup")?;
        command.stdin(Stdio::null()).stdout(log).stderr(also);
        Ok(Self { child: interrupt::spawn(command)?, scope })
    }

    /// How it has ended, if it has.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("wait for the container engine")
    }

    pub(super) fn end(mut self, how: Signal) -> Result<()> {
        self.end_by(how)
    }

    fn end_by(&mut self, how: Signal) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        let process = i32::try_from(self.child.id()).context("the process id of the engine")?;
        // Not reaped yet, so the id is still the engine's.
        let target = if self.scope == Scope::Group { -process } else { process };
        kill(Pid::from_raw(target), how).with_context(|| format!("kill process {process}"))?;
        if interrupt::wait_at_most(&mut self.child, STOP_LIMIT)?.is_none() {
            interrupt::end_by_force(&mut self.child)?;
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
