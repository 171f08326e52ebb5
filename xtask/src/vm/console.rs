//! What a virtual machine said on its console, and what follows from it. Knows neither QEMU nor time.

use std::{fmt, time::Duration};

use super::protocol::Message;

/// How far a machine came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Boot,
    Preparation,
    Tests,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boot => "before PID 1 ran",
            Self::Preparation => "before the tests began",
            Self::Tests => "during the tests",
        })
    }
}

/// Why nothing more comes from a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// QEMU ended, in this way.
    Exit(String),
    /// Nothing was said for so long.
    Silence(Duration),
    /// It did not come to an end within this.
    Overtime(Duration),
}

/// What to think of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// The tests said no.
    Failed(String),
    /// PID 1 could not run the tests.
    Broken(String),
    /// The kernel gave up: its line.
    Panicked(Stage, String),
    /// PID 1 never ran: how it ended.
    NotBooted(String),
    /// It ended without a verdict.
    Died(Stage, String),
    Hung(Stage, Duration),
    Overtime(Stage, Duration),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => write!(f, "passed"),
            Self::Failed(status) => write!(f, "tests failed: {status}"),
            Self::Broken(error) => write!(f, "the tests could not be run: {error}"),
            Self::Panicked(stage, line) => write!(f, "the kernel panicked {stage}: {line}"),
            Self::NotBooted(how) => write!(f, "the kernel did not boot: {how}"),
            Self::Died(stage, how) => write!(f, "the machine ended {stage} without a verdict: {how}"),
            Self::Hung(stage, limit) => write!(f, "hung {stage}: said nothing for {} s", limit.as_secs()),
            Self::Overtime(stage, limit) => {
                write!(f, "did not come to an end within {} s: stopped {stage}", limit.as_secs())
            }
        }
    }
}

/// A verdict, and what the tests said in sum.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    /// `… 190 passed; 1 failed; …`, of the harness.
    pub(crate) result: Option<String>,
    /// Tests that ended at once because the table of kernel features says that they do not apply.
    pub(crate) skipped: usize,
    /// The kernel met a breakpoint that it had set while it patched itself, and had taken away again. Kernels do that
    /// under QEMU's TCG before 8.1, which runs code that is not there any more: every few hundred boots.
    ///
    /// Source: <https://bugs.launchpad.net/ubuntu/+source/qemu/+bug/2051965>.
    pub(crate) stray_breakpoint: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, result, skipped, .. } = self;
        write!(f, "{verdict}")?;
        if let Some(result) = result {
            write!(f, " ({result}; {skipped} skipped by table)")?;
        }
        Ok(())
    }
}

/// Reads what comes, in pieces of any size.
pub(crate) struct Console {
    partial: Vec<u8>,
    stage: Stage,
    said: Option<Message>,
    panic: Option<String>,
    result: Option<String>,
    skipped: usize,
    stray_breakpoint: bool,
}

/// How the harness ends.
const RESULT: &str = "test result: ";

/// `tests/src/features.rs` says so.
const SKIPPED: &str = "skipped by table: ";

/// The kernel's last words.
const PANIC: &str = "Kernel panic - not syncing";

/// Of an exception that nobody in the kernel had set: `int3: 0000 [#1]`, with `Oops: ` before it or not.
const BREAKPOINT: &str = "int3: 0000 [#";

impl Console {
    pub(crate) fn new() -> Self {
        Self {
            partial: Vec::new(),
            stage: Stage::Boot,
            said: None,
            panic: None,
            result: None,
            skipped: 0,
            stray_breakpoint: false,
        }
    }

    pub(crate) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.partial);
                self.line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
            } else {
                self.partial.push(*byte);
            }
        }
    }

    fn line(&mut self, line: &str) {
        // The kernel may speak in the middle of a line of the tests.
        if let Some(at) = line.find(PANIC) {
            self.panic.get_or_insert_with(|| line[at..].to_owned());
        }
        self.stray_breakpoint |= line.contains(BREAKPOINT);
        if let Some(result) = line.strip_prefix(RESULT) {
            // `ok. 3 passed; 0 failed; 0 ignored; 0 measured; 188 filtered out; finished in 2.15s`
            let counts = result.split("; ").take(2).collect::<Vec<_>>().join("; ");
            self.result = Some(counts);
        }
        // One thread has begun the line with the name of the test.
        self.skipped += usize::from(line.contains(SKIPPED));
        match Message::read(line) {
            None => {}
            Some(Message::Started(_)) => self.stage = self.stage.max(Stage::Preparation),
            Some(Message::Testing) => self.stage = Stage::Tests,
            Some(verdict) => self.said = self.said.take().or(Some(verdict)),
        }
    }

    /// There is nothing more to wait for, but that the machine turns itself off.
    pub(crate) fn is_decided(&self) -> bool {
        self.said.is_some() || self.panic.is_some()
    }

    pub(crate) fn conclude(mut self, end: End) -> Report {
        if !self.partial.is_empty() {
            self.read(b"\n");
        }
        let (result, skipped, stray_breakpoint) = (self.result.take(), self.skipped, self.stray_breakpoint);
        Report { verdict: self.verdict(end), result, skipped, stray_breakpoint }
    }

    fn verdict(self, end: End) -> Verdict {
        if let Some(line) = self.panic {
            return match self.stage {
                Stage::Boot => Verdict::NotBooted(line),
                stage => Verdict::Panicked(stage, line),
            };
        }
        match self.said {
            Some(Message::Passed) => return Verdict::Passed,
            Some(Message::Failed(status)) => return Verdict::Failed(status),
            Some(Message::Broken(error)) => return Verdict::Broken(error),
            Some(Message::Started(_) | Message::Testing) | None => {}
        }
        match end {
            End::Exit(status) if self.stage == Stage::Boot => {
                Verdict::NotBooted(format!("QEMU ended: {status}"))
            }
            End::Exit(status) => Verdict::Died(self.stage, format!("QEMU ended: {status}")),
            End::Silence(limit) if self.stage == Stage::Boot => {
                Verdict::NotBooted(format!("nothing was said for {} s", limit.as_secs()))
            }
            End::Silence(limit) => Verdict::Hung(self.stage, limit),
            End::Overtime(limit) => Verdict::Overtime(self.stage, limit),
        }
    }
}

#[cfg(test)]
mod tests;
