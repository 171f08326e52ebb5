//! `redirector doctor`.

use std::{io, path::Path};

use super::{args, exit::Failure, output};
use crate::{
    config::file::DaemonOptions,
    doctor::{self, Report, Status},
    text::escaped,
};

pub(super) fn doctor(socket: &Path, command: &args::Doctor) -> Result<(), Failure> {
    let report = doctor::examine(socket, command.engines.opener(&DaemonOptions::default()).engines());
    output::print(|out| if command.json { output::json(out, &report) } else { print(out, &report) })?;
    if report.works {
        return Ok(());
    }
    let failed = report.checks.iter().filter(|check| check.status == Status::Fail);
    let names: Vec<&str> = failed.map(|check| check.name).collect();
    let error = io::Error::other(format!("steering cannot work here: {}", names.join(", ")));
    Err(Failure::failed(&error))
}

/// A line for each check, and one for its hint.
fn print(out: &mut impl io::Write, report: &Report) -> io::Result<()> {
    // One cause of many lines.
    let missing = doctor::missing();
    if !missing.is_empty() {
        let user = nix::unistd::geteuid();
        let who = if user.is_root() {
            "root without all of its rights".to_owned()
        } else {
            format!("not root, but user {user}")
        };
        writeln!(out, "{who}: {} missing; what fails below may be because of that", missing.join(", "))?;
    }
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in &report.checks {
        let status = shown(check.status);
        writeln!(out, "{status:<7}  {:<width$}  {}", check.name, escaped(&check.found))?;
        if let Some(hint) = &check.hint {
            writeln!(out, "{:<7}  {:<width$}  hint: {}", "", "", escaped(hint))?;
        }
    }
    if report.works {
        writeln!(out, "steering works here")?;
    }
    Ok(())
}

fn shown(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Note => "note",
        Status::Warning => "warning",
        Status::Fail => "fail",
    }
}
