//! `redirector export`.

use std::{io::Write as _, path::Path};

use super::{args, exit::Failure, output};
use crate::{
    config::file::to_toml,
    control::{self, Exported},
};

pub(super) async fn export(socket: &Path, command: args::Export) -> Result<(), Failure> {
    let answer: Exported = control::get(socket, "/v1/export").await?;
    output::print(|out| {
        if command.json {
            output::json(out, &answer)
        } else {
            out.write_all(to_toml(&answer.namespaces, &answer.discover).as_bytes())
        }
    })?;
    Ok(())
}
