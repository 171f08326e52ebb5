//! `redirector export`.

use std::{
    io::{self, Write as _},
    path::Path,
};

use super::{args, exit::Failure, output};
use crate::{
    config::file::to_toml,
    control::{self, Exported},
};

pub(super) async fn export(socket: &Path, command: args::Export) -> Result<(), Failure> {
    let answer: Exported = control::get(socket, "/v1/export").await?;
    let mut out = io::stdout().lock();
    if command.json {
        output::json(&mut out, &answer)?;
    } else {
        out.write_all(to_toml(&answer.namespaces, &answer.discover).as_bytes())?;
    }
    Ok(())
}
