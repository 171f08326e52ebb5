//! Data on stdout.

use std::io;

use serde::Serialize;

/// What `--json` prints: one document on one line.
pub(super) fn json(out: &mut impl io::Write, document: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, document)?;
    writeln!(out)
}
