//! `redirector detach`.

use std::{io, path::Path};

use super::{args, exit::Failure, output};
use crate::control::{self, DetachRequest, Detached};

pub(super) async fn detach(socket: &Path, command: args::Detach) -> Result<(), Failure> {
    let args::Detach { target, rule, close, json } = command;
    let answer: Detached =
        control::call(socket, "/v1/detach", &DetachRequest { target, rule, close }).await?;
    output::print(|out| if json { output::json(out, &answer) } else { print(out, &answer) })?;
    Ok(())
}

fn print(out: &mut impl io::Write, answer: &Detached) -> io::Result<()> {
    let Detached { target, cookie, rules, steered, closed, connections, .. } = answer;
    let target = target.to_string();
    let names: Vec<String> = rules.iter().map(ToString::to_string).collect();
    writeln!(out, "detached: {} from {} (cookie {cookie})", names.join(", "), target.escape_debug())?;
    if *steered {
        writeln!(out, "other rules still steer the namespace")?;
    }
    match closed {
        0 => {}
        1 => writeln!(out, "1 relayed connection is reset")?,
        _ => writeln!(out, "{closed} relayed connections are reset")?,
    }
    match connections {
        0 => {}
        1 => writeln!(out, "1 relayed connection goes on to its end")?,
        _ => writeln!(out, "{connections} relayed connections go on to their end")?,
    }
    Ok(())
}
