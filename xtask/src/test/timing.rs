//! How long each test took, as the harness says it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::tool;

/// As many of the slowest tests are named.
const NAMED: usize = 10;

/// A test that takes longer says in its documentation why: every change pays for it.
const LONG: Duration = Duration::from_secs(20);

/// The tests of all binaries that were run, with their times.
#[derive(Default)]
pub(super) struct Times(Vec<(String, Duration)>);

impl Times {
    /// Runs a test binary, shows what it says, and keeps the times.
    pub(super) fn run(&mut self, command: &mut Command) -> Result<ExitStatus> {
        let shown = tool::show(command);
        // Times are an unstable option of the harness (`--report-time`, library/test/src/cli.rs), which this makes it accept.
        command.args(["-Z", "unstable-options", "--report-time"]).env("RUSTC_BOOTSTRAP", "1");
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("start {shown}"))?;
        let stdout = child.stdout.take().with_context(|| format!("take the stdout of {shown}"))?;
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.with_context(|| format!("read the stdout of {shown}"))?;
            let mut out = std::io::stdout().lock();
            // A closed stdout must not end the tests: their verdict is the exit code.
            drop(out.write_all(&line).and_then(|()| out.write_all(b"\n")));
            self.0.extend(timed(&String::from_utf8_lossy(&line)));
        }
        child.wait().with_context(|| format!("wait for {shown}"))
    }

    /// One line for each of the slowest.
    pub(super) fn tell(&mut self) {
        self.0.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        for (test, time) in self.0.iter().take(NAMED) {
            let long = if *time > LONG { ", a long one: its documentation has to say why" } else { "" };
            tool::note(&format!("slowest: {:>6.1} s {test}{long}", time.as_secs_f64()));
        }
    }
}

/// The name and the time in `test NAME ... ok <1.234s>`.
fn timed(line: &str) -> Option<(String, Duration)> {
    let (name, rest) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = rest.rsplit_once('<')?.1.strip_suffix("s>")?;
    Some((name.to_owned(), Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_from_the_line_of_a_test_and_from_no_other() {
        assert_eq!(
            timed("test death::a_namespace_dies ... ok <1.250s>"),
            Some(("death::a_namespace_dies".to_owned(), Duration::from_millis(1250)))
        );
        for line in [
            "test it ... ok",
            "test result: ok. 3 passed; finished in 1.25s",
            "running 3 tests",
            "test a ... ok <xs>",
        ] {
            assert_eq!(timed(line), None, "{line}");
        }
    }
}
