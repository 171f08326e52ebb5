//! Logs go to stderr; data has stdout for itself.
//!
//! Nobody waits for the log, and nobody fails with it: lines go through a queue that is bounded to a thread that writes
//! them. What is lost, because the reader is slow or gone or the disk is full, is counted, and said in the log as soon as
//! something can be written again.

mod queue;
mod writer;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write},
    mem, panic,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tracing::Dispatch;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt as _};

use self::queue::Queue;
use crate::{
    config::file::{LogFormat, LogLevel},
    text::escaped,
};

pub use writer::is_writable;

/// What may wait for the writer: some ten thousand lines.
static QUEUE: Queue = Queue::new(4 << 20);

/// At the end: how long one line may take, and all that wait.
const STILL: Duration = Duration::from_millis(500);
const FLUSH: Duration = Duration::from_secs(2);

/// The log of this process. Dropping it waits until what waits is written, for as long as somebody reads.
#[derive(Debug)]
#[must_use = "dropping it flushes the log"]
pub struct Log(());

impl Drop for Log {
    fn drop(&mut self) {
        QUEUE.flush(STILL, FLUSH);
    }
}

/// Starts logging: what `level` says, which is about redirector itself; else what `RUST_LOG` says; else what `file` says, or
/// `info` and above. One line per ended connection comes at `redirector::access=debug`. Panics are logged whatever it says.
///
/// # Errors
///
/// When there can be no thread that writes.
pub fn init(format: LogFormat, level: Option<LogLevel>, file: Option<LogLevel>) -> io::Result<Log> {
    let filter = match (level, EnvFilter::try_from_default_env()) {
        (Some(level), _) => filter(level),
        (None, Ok(filter)) => filter,
        (None, Err(_)) => self::filter(file.unwrap_or(LogLevel::Info)),
    };
    let own = Arc::new(Own::new(format));
    thread::Builder::new().name("log".into()).spawn({
        let own = Arc::clone(&own);
        move || writer::write_all(&QUEUE, io::stderr(), |lost| own.lost(lost))
    })?;
    panic::set_hook(Box::new(move |panic| QUEUE.push(own.panicked(panic))));
    subscriber(format, filter, || OneLine(Enqueue)).init();
    Ok(Log(()))
}

/// What other crates have to say below `info` is for programmers.
fn filter(level: LogLevel) -> EnvFilter {
    EnvFilter::new(match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "info,redirector=debug",
        LogLevel::Trace => "info,redirector=trace",
    })
}

/// Lines that were not written since the start of this process.
#[must_use]
pub fn lines_lost() -> u64 {
    QUEUE.lost()
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // Of what cannot be written it says so itself, on stderr, and panics when that cannot be written.
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => log.finish().into(),
        LogFormat::Json => log.json().flatten_event(true).finish().into(),
    }
}

/// Gives each event to the writer's queue.
struct Enqueue;

impl Write for Enqueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        QUEUE.push(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the log says of itself, and of panics: in its format, and not subject to its filter.
struct Own {
    dispatch: Dispatch,
    line: Arc<Mutex<Vec<u8>>>,
    /// Held by who makes a line.
    turn: Mutex<()>,
}

impl Own {
    fn new(format: LogFormat) -> Self {
        let line = Arc::<Mutex<Vec<u8>>>::default();
        let writer = {
            let line = Arc::clone(&line);
            move || OneLine(Shared(Arc::clone(&line)))
        };
        Self { dispatch: subscriber(format, EnvFilter::new("warn"), writer), line, turn: Mutex::default() }
    }

    fn lost(&self, lost: u64) -> Vec<u8> {
        self.line(&format!("{lost} log lines lost"), || {
            tracing::warn!(target: "redirector::log", lost, "log lines lost: nobody read them, or they could not be written");
        })
    }

    fn panicked(&self, panic: &panic::PanicHookInfo<'_>) -> Vec<u8> {
        let thread = thread::current();
        let thread = thread.name().unwrap_or("unnamed");
        let backtrace = Backtrace::capture();
        let backtrace = match backtrace.status() {
            BacktraceStatus::Captured => Some(backtrace.to_string()),
            _ => None,
        };
        self.line(&panic.to_string(), || {
            tracing::error!(target: "redirector::panic", thread, backtrace, "this is a bug in redirector: {panic}");
        })
    }

    /// The line that an event makes, else a plain one: where a line is being made there can be no other.
    fn line(&self, plain: &str, event: impl FnOnce()) -> Vec<u8> {
        let plain = || (escaped(plain) + "\n").into_bytes();
        let Ok(_turn) = self.turn.try_lock() else { return plain() };
        tracing::dispatcher::with_default(&self.dispatch, event);
        let line = mem::take(&mut *self.line.lock().unwrap_or_else(PoisonError::into_inner));
        if line.is_empty() { plain() } else { line }
    }
}

/// A buffer that the subscriber writes to.
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes each event as one line, whatever the names and paths in it hold: those come from users and containers.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// Takes a whole event: the subscriber writes each at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
        self.0.write_all((escaped(text) + end).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_stays_one_line_that_no_terminal_obeys() {
        let mut out = Vec::new();
        OneLine(&mut out).write_all(b"netns=netns:a\x1b[31m\nforged line\n").unwrap();
        assert_eq!(out, b"netns=netns:a\\u{1b}[31m\\nforged line\n");
    }
}
