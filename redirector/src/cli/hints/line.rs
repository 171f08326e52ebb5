//! A command line as words.

use clap::{
    Parser as _,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::cli::{args::Args, words};

/// Its words after the name of the program.
pub(super) type Line = [String];

/// Whether a line would be taken; help and the version are no errors.
pub(super) fn parse(words: &Line) -> Result<(), clap::Error> {
    let words =
        words::of(std::iter::once("redirector").chain(words.iter().map(String::as_str)).map(Into::into));
    match Args::try_parse_from(words) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What clap says of an error, where that is one text.
pub(super) fn context(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        ContextValue::Strings(texts) => texts.first().map(String::as_str),
        _ => None,
    }
}
