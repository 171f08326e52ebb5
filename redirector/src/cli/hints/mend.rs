//! One step of mending a line: what was wrong first.

use std::path::Path;

use clap::error::{ContextKind, ErrorKind};

use super::{
    line::{Line, context, parse},
    options, values, words,
};
use crate::{
    cli::words::command,
    config::{
        Destination, Match, RuleName, Span, Target,
        meant::{Meant, meant},
    },
};

/// Of what no line can show: what the shell has done to it.
pub(super) fn told_of(error: &clap::Error, words: &Line) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let word = context(error, ContextKind::InvalidArg)?;
    let (_, name) = command(words)?;
    let at = words.iter().position(|one| one == word)?;
    // `tcp:*` where there are files of such names.
    if is_match(word) && Path::new(word).exists() && is_match(words.get(at.checked_sub(1)?)?) {
        return Some("the shell has put names of files for a `*`: quote it, as in `--match 'tcp:*'`".into());
    }
    let targets = words.iter().filter(|word| word.parse::<Target>().is_ok()).count();
    let takes_one = matches!(name, "attach" | "detach" | "list" | "explain" | "exec" | "cleanup");
    (takes_one && targets > 1 && word.parse::<Target>().is_ok() && !is_match(word))
        .then(|| format!("`redirector {name}` takes one TARGET: run it once for each"))
}

fn is_match(word: &str) -> bool {
    word.parse::<Match>().is_ok()
}

/// The line without what an error is about, as far as that can be told.
pub(super) fn step(error: &clap::Error, words: &Line) -> Option<Vec<String>> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => named(words),
        ErrorKind::UnknownArgument => {
            let argument = context(error, ContextKind::InvalidArg)?.to_owned();
            if let Some(line) = before_the_program(words) {
                return Some(line);
            }
            if argument.starts_with('-') && argument.len() > 1 {
                options::instead_of(&argument, words)
            } else {
                with_an_option(&argument, words)
            }
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let argument = context(error, ContextKind::InvalidArg)?;
            let value = context(error, ContextKind::InvalidValue)?;
            another_place(argument, value, words).or_else(|| {
                let meant = values::instead_of(error, argument, value)?;
                replaced(words, argument, value, &meant)
            })
        }
        // `--dry-run=true`.
        ErrorKind::TooManyValues => {
            let argument = context(error, ContextKind::InvalidArg)?;
            let at = words
                .iter()
                .position(|word| word.split_once('=').is_some_and(|(option, _)| option == argument))?;
            let mut line = words.to_vec();
            line[at] = argument.to_owned();
            Some(line)
        }
        ErrorKind::MissingRequiredArgument => before_the_program(words),
        _ => None,
    }
}

/// With a command that there is.
fn named(words: &Line) -> Option<Vec<String>> {
    let (at, word) = command(words)?;
    let with = |meant: &[&str]| {
        let meant: Vec<_> = meant.iter().map(|one| (*one).to_owned()).collect();
        [&words[..at], &meant, &words[at + 1..]].concat()
    };
    if let Some(meant) = words::synonym(word) {
        return Some(with(meant));
    }
    // The command comes first, then what it is about.
    let is_command = |word: &&String| words::nearest_command(word).as_ref() == Some(*word);
    if let Some(later) = words[at + 1..].iter().position(|word| is_command(&word)) {
        let mut line = words.to_vec();
        let command = line.remove(at + 1 + later);
        line.insert(at, command);
        return Some(line);
    }
    words::nearest_command(word).map(|meant| with(&[&meant]))
}

/// With `--` before the program of `exec`.
fn before_the_program(words: &Line) -> Option<Vec<String>> {
    let (at, name) = command(words)?;
    if name != "exec" || words.iter().any(|word| word == "--") {
        return None;
    }
    let with = |place: usize| [&words[..place], &["--".to_owned()], &words[place..]].concat();
    let is_program = |place: &usize| !words[*place].starts_with('-');
    (at + 2..words.len()).filter(is_program).map(with).find(|line| parse(line).is_ok())
}

/// With the option that belongs before a value.
fn with_an_option(value: &str, words: &Line) -> Option<Vec<String>> {
    let (place, name) = command(words)?;
    let at = place + 1 + words[place + 1..].iter().position(|word| word == value)?;
    let has =
        |option: &str| words.iter().any(|word| word == option || word.starts_with(&format!("{option}=")));
    let with = |option: &str| Some([&words[..at], &[option.to_owned()], &words[at..]].concat());
    let is_other = |word: &String| is_match(word) || is_destination(word);
    if at > place + 1 && value.parse::<Target>().is_ok() && words.get(place + 1).is_some_and(is_other) {
        // It comes first.
        let mut line = words.to_vec();
        let target = line.remove(at);
        line.insert(place + 1, target);
        return Some(line);
    }
    match name {
        "attach" | "exec" => {
            let to = || name == "attach" && !has("--to");
            if is_match(value) || could_be::<Match>(value) && !has("--match") && !is_destination(value) {
                with("--match")
            } else if to() && (is_destination(value) || could_be::<Destination>(value)) {
                with("--to")
            } else if matches!(value, "to" | "->" | "=>" | "match" | "from") {
                // A word between, as people speak.
                Some([&words[..at], &words[at + 1..]].concat())
            } else {
                None
            }
        }
        "detach" if value.parse::<RuleName>().is_ok() => with("--rule"),
        "run" => with("--config"),
        _ => None,
    }
}

fn is_destination(word: &str) -> bool {
    word.parse::<Destination>().is_ok()
}

fn could_be<T: Meant>(word: &str) -> bool {
    !meant::<T>(word).is_empty() && word.bytes().any(|byte| byte.is_ascii_digit())
}

/// Where a value stands in the place of another one.
fn another_place(argument: &str, value: &str, words: &Line) -> Option<Vec<String>> {
    if !argument.contains("<TARGET>") && !argument.contains("[TARGET]") {
        return None;
    }
    let at = words.iter().position(|word| word == value)?;
    // `list --watch 1s`.
    if words.get(at.checked_sub(1)?).is_some_and(|before| before == "--watch")
        && value.parse::<Span>().is_ok()
    {
        let joined = format!("--watch={value}");
        return Some([&words[..at - 1], &[joined], &words[at + 1..]].concat());
    }
    if !is_match(value) && !is_destination(value) {
        return None;
    }
    // Some other word is the target, which comes first.
    let target = (at + 1..words.len()).find(|place| {
        !words[place - 1].starts_with("--")
            && words[*place].parse::<Target>().is_ok()
            && !is_match(&words[*place])
    })?;
    let mut line = words.to_vec();
    let target = line.remove(target);
    line.insert(at, target);
    Some(line)
}

/// With another value in the place of one that an argument has.
fn replaced(words: &Line, argument: &str, value: &str, meant: &str) -> Option<Vec<String>> {
    let option = argument.split(' ').next().filter(|option| option.starts_with('-'));
    let before_program = words.iter().position(|word| word == "--").unwrap_or(words.len());
    for at in 0..before_program {
        let is_its = match option {
            Some(option) => at > 0 && words[at - 1] == option,
            None => true,
        };
        let (prefix, own) = match (option, words[at].split_once('=')) {
            (Some(option), Some((one, own))) if one == option => (format!("{option}="), own),
            _ if is_its => (String::new(), &*words[at]),
            _ => continue,
        };
        // Of several with commas between, one.
        let parts: Vec<_> = if own == value { vec![own] } else { own.split(',').collect() };
        if let Some(place) = parts.iter().position(|part| *part == value) {
            let mut parts = parts;
            parts[place] = meant;
            let mut line = words.to_vec();
            line[at] = prefix + &parts.join(",");
            return Some(line);
        }
    }
    None
}
