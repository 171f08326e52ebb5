//! Answers to a command line that names no command to run: help, the version, a usage error.

use std::{ffi::OsString, process::ExitCode};

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::{
    exit::{USAGE, finish, say},
    hints, output,
};

/// Help and version as clap prints them; of an error one line, which names the object, and one that helps. `typed` is the
/// whole command line.
pub(super) fn usage(error: &clap::Error, typed: &[OsString]) -> ExitCode {
    if !error.use_stderr() {
        // clap writes it, in colours where there is a terminal.
        return finish(output::print(|_| error.print()).map(drop));
    }
    say("error", &of_value(error).unwrap_or_else(|| first_lines(error)));
    say("hint", &hints::hint(error, typed));
    USAGE.into()
}

/// What is wrong with a value, which is named once.
fn of_value(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::ValueValidation {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(&**text),
        _ => None,
    };
    let (argument, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let why = std::error::Error::source(error)?;
    let why = match why.downcast_ref::<std::num::ParseIntError>() {
        Some(_) => format!("`{value}` is not a number that can be here"),
        None => why.to_string(),
    };
    // A target is named by what it is; an option may be one of several with values of the same kind.
    let option = argument.split(' ').next().filter(|option| option.starts_with('-'));
    let value_is_named = why.contains(&format!("`{}`", value.escape_debug()));
    Some(match option {
        Some(option) if value_is_named => format!("{option}: {why}"),
        None if value_is_named => why,
        _ => format!("{argument}: `{value}`: {why}"),
    })
}

/// What clap says, before it says more; a list of what is missing goes over lines that are indented.
fn first_lines(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.is_empty());
    let line = lines.map(str::trim).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}
