//! `redirector close`.

use std::{io::Write as _, path::Path};

use super::{args, exit::Failure, output};
use crate::control::{self, CloseRequest, Closed};

pub(super) async fn close(socket: &Path, command: args::Close) -> Result<(), Failure> {
    let args::Close { target, client, rule, json } = command;
    let answer: Closed = control::call(socket, "/v1/close", &CloseRequest { target, client, rule }).await?;
    let Closed { target, cookie, connections, .. } = &answer;
    let target = target.to_string();
    output::print(|out| match json {
        true => output::json(out, &answer),
        false => {
            writeln!(out, "closed: {connections} connections in {} (cookie {cookie})", target.escape_debug())
        }
    })?;
    Ok(())
}
