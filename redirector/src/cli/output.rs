//! Data on stdout.

use std::io::{self, StdoutLock, Write as _};

use serde::Serialize;

use super::exit::Failure;

/// Who reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// It takes what is printed.
    There,
    /// It has seen enough, as `head` has.
    Gone,
}

/// Prints. That the reader is gone is no failure: the command goes on as if everything had been read.
pub(super) fn print(
    write: impl FnOnce(&mut StdoutLock<'static>) -> io::Result<()>,
) -> Result<Reader, Failure> {
    let mut out = io::stdout().lock();
    match write(&mut out).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::text(format!("write to standard output: {error}"))),
    }
}

/// What `--json` prints: one document on one line.
pub(super) fn json(out: &mut impl io::Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, document)?;
    writeln!(out)
}
