//! How much the unit lets the daemon do, by systemd's own measure.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::tool;

/// The most that is accepted, in tenths of systemd's points (10 points: everything is allowed). What makes it up is
/// said in `packaging/README.md`.
const MOST: &str = "35";

/// The line with the score. Fails when it is beyond the limit.
pub(super) fn score(unit: &Path) -> Result<String> {
    let mut analyze = tool::command("systemd-analyze")?;
    analyze.args(["security", "--offline=true", "--no-pager", "--threshold", MOST]).arg(unit);
    let report = tool::call_quietly(&mut analyze).context("the unit allows more than before")?;
    let line = report.lines().rfind(|line| !line.is_empty());
    Ok(line.context("`systemd-analyze security` printed nothing")?.to_owned())
}
