//! What a command line that was not understood could have meant.
//!
//! A line is mended step by step until the parser takes it, and told only then: nobody is told to type what is refused. Nothing of
//! it is run.

mod line;
mod mend;
mod options;
mod values;
mod words;

use std::{ffi::OsString, fmt::Write as _};

use clap::CommandFactory as _;

use self::line::{Line, parse};
use super::{args::Args, words::command};

/// Mistakes in one line that are mended.
const MOST_STEPS: usize = 8;

/// A line that is longer is not told: the mistake would not be found in it.
const LONGEST: usize = 300;

/// What helps whoever typed this.
pub(super) fn hint(error: &clap::Error, typed: &[OsString]) -> String {
    let words: Option<Vec<String>> =
        typed.iter().skip(1).map(|word| word.to_str().map(str::to_owned)).collect();
    let words = words.unwrap_or_default();
    if let Some(told) = words::told_of(error, &words).or_else(|| mend::told_of(error, &words)) {
        return told;
    }
    if let Some(line) = mended(error, &words).map(|line| shown(&line)).filter(|line| line.len() <= LONGEST) {
        return format!("did you mean `{line}`?");
    }
    usage_of(&words)
}

/// The line that may have been meant. `None` where not all that is wrong with it can be mended.
fn mended(error: &clap::Error, words: &Line) -> Option<Vec<String>> {
    let mut line = mend::step(error, words)?;
    for _ in 1..MOST_STEPS {
        match parse(&line) {
            Ok(()) => return Some(line),
            Err(error) => line = mend::step(&error, &line)?,
        }
    }
    None
}

/// How the command is used, or where commands are shown.
fn usage_of(words: &Line) -> String {
    let mut all = Args::command();
    all.build();
    let command = command(words).and_then(|(_, name)| all.find_subcommand_mut(name));
    let Some(command) = command else {
        return "`redirector help` shows the commands".into();
    };
    let name = command.get_name().to_owned();
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").split_whitespace().collect::<Vec<_>>().join(" ");
    format!("usage: {usage}; `redirector help {name}` says more")
}

/// A line as it is typed.
fn shown(words: &Line) -> String {
    let mut line = "redirector".to_owned();
    for word in words {
        write!(line, " {}", quoted(word)).expect("a String takes all");
    }
    line
}

/// A word, so that a shell takes it as it is.
fn quoted(word: &str) -> String {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "_@%+=:,./-".contains(one);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests;
