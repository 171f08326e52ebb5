//! Options that are called otherwise elsewhere, and values where an option should be.

use clap::CommandFactory as _;

use super::line::Line;
use crate::{
    cli::{args::Args, words::command},
    config::meant::nearest,
};

/// What takes the place of an option that a command does not have.
enum Instead {
    /// Another option, with the same value if there is one.
    Option(&'static str),
    /// Its value alone.
    Value,
    /// A flag, and no value.
    Flag(&'static str),
    /// Another option and its value, and no value of its own.
    Both(&'static str, &'static str),
}
use Instead::{Both, Flag, Option as Other, Value};

/// By what is typed; the first that the command has.
const SYNONYMS: [(&str, Instead); 52] = [
    ("--rule", Other("--name")),
    ("--name", Other("--rule")),
    ("--matches", Other("--match")),
    ("--matching", Other("--match")),
    ("--port", Other("--match")),
    ("--ports", Other("--match")),
    ("--listen", Other("--match")),
    ("-m", Other("--match")),
    ("-p", Other("--match")),
    ("--dest", Other("--to")),
    ("--dst", Other("--to")),
    ("--destination", Other("--to")),
    ("--upstream", Other("--to")),
    ("--backend", Other("--to")),
    ("--source", Other("--from")),
    ("--src", Other("--from")),
    ("--client", Other("--from")),
    ("--exclude", Other("--except")),
    ("--not", Other("--except")),
    ("--dev", Other("--interface")),
    ("--device", Other("--interface")),
    ("--iface", Other("--interface")),
    ("-i", Other("--interface")),
    ("--prio", Other("--priority")),
    ("--timeout", Other("--connect-timeout")),
    ("--fallback", Other("--on-unavailable")),
    ("--target", Value),
    ("--netns", Value),
    ("--container", Value),
    ("--file", Value),
    ("--config", Value),
    ("-f", Other("--config")),
    ("-f", Value),
    ("-c", Other("--config")),
    ("-c", Value),
    ("--file", Other("--config")),
    ("--flow", Value),
    ("-o", Flag("--json")),
    ("--output", Flag("--json")),
    ("--format", Flag("--json")),
    ("-j", Flag("--json")),
    ("-n", Flag("--dry-run")),
    ("--dry", Flag("--dry-run")),
    ("--test", Flag("--dry-run")),
    ("--diff", Flag("--dry-run")),
    ("-w", Flag("--watch")),
    ("--host", Flag("--host-netns")),
    ("-v", Both("--log-level", "debug")),
    ("--verbose", Both("--log-level", "debug")),
    ("--debug", Both("--log-level", "debug")),
    ("-u", Other("--user")),
    ("-e", Other("--env")),
];

/// Options of a command, and whether each takes a value.
fn options(name: &str) -> Vec<(String, bool)> {
    let mut all = Args::command();
    all.build();
    let Some(command) = all.find_subcommand(name) else { return Vec::new() };
    let options = command
        .get_arguments()
        .filter_map(|one| Some((format!("--{}", one.get_long()?), one.get_action().takes_values())));
    options.collect()
}

/// A line with another option in the place of one that its command does not have.
pub(super) fn instead_of(typed: &str, words: &Line) -> Option<Vec<String>> {
    let at = words.iter().position(|word| {
        word == typed || word.strip_prefix(typed).is_some_and(|rest| rest.starts_with('='))
    })?;
    let (place, name) = command(words)?;
    if at < place {
        return after_the_command(at, place, words);
    }
    let has = options(name);
    let own_value = words[at].split_once('=').map(|(_, value)| value.to_owned());
    let next = || words.get(at + 1).filter(|next| !next.starts_with('-')).cloned();
    let takes_next = own_value.is_none() && next().is_some();
    let value = || own_value.clone().or_else(next);
    let known = |option: &str| has.iter().any(|(one, _)| one == option);
    let replaced = SYNONYMS.iter().filter(|(one, _)| *one == typed).find_map(|(_, instead)| match instead {
        Other(option) if known(option) => match value() {
            Some(value) => Some((vec![(*option).to_owned(), value], takes_next)),
            None => Some((vec![(*option).to_owned()], false)),
        },
        Value if !known("--config") || typed == "--target" => {
            value().map(|value| (vec![qualified(typed, value)], takes_next))
        }
        // `-o json`, but not `--dry NAME`.
        Flag(flag) if known(flag) => {
            let takes = takes_next && next().as_deref() == Some("json");
            Some((vec![(*flag).to_owned()], takes))
        }
        Both(option, value) if known(option) => {
            Some((vec![(*option).to_owned(), (*value).to_owned()], false))
        }
        _ => None,
    });
    let (replaced, takes_next) = replaced.or_else(|| {
        let near = nearest(typed, has.iter().map(|(option, _)| option.as_str()))?;
        let rest =
            own_value.clone().map(|value| format!("{near}={value}")).unwrap_or_else(|| near.to_owned());
        Some((vec![rest], false))
    })?;
    let after = at + 1 + usize::from(takes_next);
    Some([&words[..at], &replaced, &words[after..]].concat())
}

/// `--netns web` is `netns:web`.
fn qualified(typed: &str, value: String) -> String {
    match typed {
        "--netns" if !value.contains(':') => format!("netns:{value}"),
        "--container" if !value.contains(':') => format!("docker:{value}"),
        _ => value,
    }
}

/// An option of a command that was typed before it.
fn after_the_command(at: usize, place: usize, words: &Line) -> Option<Vec<String>> {
    let name = words[place].clone();
    let option = words[at].split('=').next()?.to_owned();
    options(&name)
        .iter()
        .any(|(one, _)| *one == option)
        .then(|| [&words[..at], &words[at + 1..=place], &words[at..=at], &words[place + 1..]].concat())
}
