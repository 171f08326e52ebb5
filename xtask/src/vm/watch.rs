//! Watching a virtual machine: what comes from its console, and the limits that end it. Knows nothing of QEMU but
//! that it writes the console to its stdout.

use std::{
    io::{self, Read as _, Write as _},
    process::Child,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::console::{Console, End};
use crate::demo::interrupt::Interrupt;

/// What a machine must not exceed.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Without a word on the console.
    pub(crate) silence: Duration,
    /// From start to end.
    pub(crate) overall: Duration,
}

impl Limits {
    /// Longer than any call of a test waits (100 s, `HANG` in `tests/src/lib.rs`), and than a kernel takes to boot.
    pub(crate) const DEFAULT: Self =
        Self { silence: Duration::from_secs(240), overall: Duration::from_secs(30 * 60) };
}

/// Once there is a verdict, a machine has so long to turn itself off.
const FAREWELL: Duration = Duration::from_secs(20);

/// How often a limit or a signal is looked for.
const STEP: Duration = Duration::from_millis(200);

/// A thread reads, because a read has no time limit.
pub(crate) fn read(qemu: &mut Child) -> Result<Receiver<Vec<u8>>> {
    let mut stdout = qemu.stdout.take().context("take the stdout of QEMU")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stdout.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    Ok(receiver)
}

/// Until the console is closed, which gives no end, or a limit is exceeded.
pub(crate) fn follow(
    interrupt: &Interrupt,
    output: &Receiver<Vec<u8>>,
    limits: Limits,
    show: impl Fn(&[u8]) -> Result<()>,
) -> Result<(Console, Option<End>)> {
    let mut console = Console::new();
    let mut deadline = Instant::now() + limits.overall;
    let mut heard = Instant::now();
    let mut decided = false;
    loop {
        interrupt.check()?;
        if console.is_decided() && !decided {
            decided = true;
            deadline = deadline.min(Instant::now() + FAREWELL);
        }
        if heard.elapsed() >= limits.silence {
            return Ok((console, Some(End::Silence(limits.silence))));
        }
        if Instant::now() >= deadline {
            return Ok((console, Some(End::Overtime(limits.overall))));
        }
        match output.recv_timeout(STEP.min(limits.silence)) {
            Ok(bytes) => {
                heard = Instant::now();
                console.read(&bytes);
                show(&bytes)?;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok((console, None)),
        }
    }
}

/// A console ends its lines with CR LF.
pub(crate) fn show(bytes: &[u8]) -> Result<()> {
    let bytes: Vec<_> = bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
    let mut stdout = io::stdout().lock();
    stdout.write_all(&bytes).and_then(|()| stdout.flush()).context("write to stdout")
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::vm::console::{Stage, Verdict};

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(100);
    const TESTING: &[u8] = b"\r\nredirector-vm: testing\r\n";

    /// What follows from a console, and what of it was shown.
    fn verdict(console: &Receiver<Vec<u8>>, limits: Limits) -> (Verdict, Vec<u8>) {
        let shown = RefCell::new(Vec::new());
        let interrupt = Interrupt::install().unwrap();
        let followed = follow(&interrupt, console, limits, |bytes| {
            shown.borrow_mut().extend_from_slice(bytes);
            Ok(())
        });
        let (console, end) = followed.unwrap();
        let end = end.unwrap_or_else(|| End::Exit("exit status: 0".into()));
        (console.conclude(end).verdict, shown.into_inner())
    }

    #[test]
    fn silence_is_a_hang_and_what_was_said_is_shown() {
        let (sender, console) = mpsc::channel();
        sender.send(TESTING.to_vec()).unwrap();
        let (verdict, shown) = verdict(&console, Limits { silence: SHORT, overall: LONG });
        assert_eq!(verdict, Verdict::Hung(Stage::Tests, SHORT));
        assert_eq!(shown, TESTING);
    }

    #[test]
    fn a_machine_that_talks_for_ever_is_stopped() {
        let (sender, console) = mpsc::sync_channel(1);
        thread::spawn(move || {
            sender.send(TESTING.to_vec()).unwrap();
            while sender.send(b"more\r\n".to_vec()).is_ok() {}
        });
        let (verdict, _) = verdict(&console, Limits { silence: LONG, overall: SHORT });
        assert_eq!(verdict, Verdict::Overtime(Stage::Tests, SHORT));
    }

    #[test]
    fn a_console_that_is_closed_is_the_end() {
        let limits = Limits { silence: LONG, overall: LONG };
        let (sender, console) = mpsc::channel();
        sender.send(TESTING.to_vec()).unwrap();
        drop(sender);
        let (died, _) = verdict(&console, limits);
        assert!(matches!(died, Verdict::Died(Stage::Tests, _)), "{died:?}");

        let (sender, console) = mpsc::channel();
        sender.send([TESTING, b"\r\nredirector-vm: passed\r\n"].concat()).unwrap();
        drop(sender);
        assert_eq!(verdict(&console, limits).0, Verdict::Passed);
    }
}
