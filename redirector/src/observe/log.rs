//! Logs go to stderr; data has stdout for itself.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;

use crate::config::file::LogFormat;

/// Starts logging: `info` and above, or what `RUST_LOG` says. One line per ended connection comes at
/// `redirector::access=debug`.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| OneLine(io::stderr()))
        .with_ansi(false);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
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

/// Control characters as what a programmer would write for them, all others as they are.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
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
