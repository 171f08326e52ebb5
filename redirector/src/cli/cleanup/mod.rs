//! `redirector cleanup`: what a daemon or an `exec` left behind that was killed.
//!
//! Links, maps, programs and sockets end with the process that has them, so what can be left is files: socket files,
//! and the directory of an `exec` that was its own daemon. Nothing that a living process uses is touched, and nothing
//! that redirector has not made.

mod cleaned;
mod directories;
mod holders;

use std::{io, os::fd::AsFd as _, path::Path};

use socket2::Type;

use self::{
    cleaned::{Cleaned, Kept, Program, Removed},
    holders::ProgramHolder,
};
use super::{args, exit::Failure, output};
use crate::{
    config::{Target, file::DaemonOptions},
    control::{Error, SCHEMA, Stale, handoff_path, remove_stale},
    kernel,
    locate::{Caller, Opener},
    text::escaped,
};

const SERVED: &str = "a daemon serves it";

pub(super) fn cleanup(socket: &Path, command: &args::Cleanup) -> Result<(), Failure> {
    let mut cleaned = Cleaned { schema: SCHEMA, removed: Vec::new(), kept: Vec::new(), programs: Vec::new() };
    match &command.target {
        Some(target) => {
            cleaned.programs = programs(target, &command.engines.opener(&DaemonOptions::default()))?;
        }
        None => {
            for (path, kind) in [(socket.to_owned(), Type::STREAM), (handoff_path(socket), Type::SEQPACKET)] {
                match remove_stale(&path, kind).map_err(|error| Failure::failed(&error))? {
                    Stale::Removed => cleaned.removed.push(Removed { path, what: "socket" }),
                    Stale::Served => cleaned.kept.push(Kept { path, why: SERVED }),
                    Stale::Missing | Stale::Foreign => {}
                }
            }
            directories::remove(&std::env::temp_dir(), &mut cleaned)?;
        }
    }
    output::print(|out| if command.json { output::json(out, &cleaned) } else { print(out, &cleaned) })?;
    Ok(())
}

/// What steers a namespace and is not a running redirector's. There are no files that belong to one namespace.
fn programs(target: &Target, opener: &Opener) -> Result<Vec<Program>, Failure> {
    let caller = Caller::this_process();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let netns = runtime.block_on(opener.open(target.clone(), caller)).map_err(Error::from)?;
    let attached = kernel::attached_programs(netns.fd.as_fd())
        .map_err(|error| io::Error::new(error.kind(), format!("bpf BPF_PROG_QUERY `{target}`: {error}")))?;
    if attached.is_empty() {
        return Ok(Vec::new());
    }
    let mut holders = holders::of_programs()?;
    let programs = attached.into_iter().map(|program| {
        let held_by = holders.remove(&program.id).unwrap_or_default();
        Program { program, held_by }
    });
    Ok(programs.filter(|program| !program.held_by.iter().any(ProgramHolder::is_redirector)).collect())
}

fn print(out: &mut impl io::Write, cleaned: &Cleaned) -> io::Result<()> {
    let shown = |path: &Path| escaped(&path.display().to_string());
    for Removed { path, what } in &cleaned.removed {
        writeln!(out, "removed: {what} {}", shown(path))?;
    }
    for Kept { path, why } in &cleaned.kept {
        writeln!(out, "kept: {}: {why}", shown(path))?;
    }
    for Program { program, held_by } in &cleaned.programs {
        let holders: Vec<String> =
            held_by.iter().map(|holder| format!("{} (`{}`)", holder.pid, escaped(&holder.command))).collect();
        let holders = match holders.as_slice() {
            [] => "no process that can be seen: it is pinned, or held elsewhere".to_owned(),
            holders => holders.join(", "),
        };
        let name = escaped(&program.name);
        writeln!(out, "left alone: sk_lookup program {} `{name}`, held by {holders}", program.id)?;
    }
    if cleaned.removed.is_empty() {
        writeln!(out, "nothing to clean up")?;
    }
    Ok(())
}
