//! Commands that are called otherwise elsewhere.

use clap::{
    CommandFactory as _,
    error::{ContextKind, ErrorKind},
};

use super::line::{Line, context};
use crate::{
    cli::{args::Args, words::command},
    config::meant::nearest,
};

/// What people type for a command of ours.
const SYNONYMS: [(&str, &[&str]); 54] = [
    ("status", &["list"]),
    ("ls", &["list"]),
    ("lst", &["list"]),
    ("ps", &["list"]),
    ("show", &["list"]),
    ("get", &["list"]),
    ("stat", &["list"]),
    ("rules", &["list"]),
    ("watch", &["list", "--watch"]),
    ("top", &["list", "--watch"]),
    ("rm", &["detach"]),
    ("remove", &["detach"]),
    ("delete", &["detach"]),
    ("del", &["detach"]),
    ("unset", &["detach"]),
    ("undo", &["detach"]),
    ("unsteer", &["detach"]),
    ("flush", &["detach"]),
    ("add", &["attach"]),
    ("set", &["attach"]),
    ("create", &["attach"]),
    ("new", &["attach"]),
    ("change", &["attach"]),
    ("replace", &["attach"]),
    ("steer", &["attach"]),
    ("redirect", &["attach"]),
    ("forward", &["attach"]),
    ("diff", &["apply", "--dry-run"]),
    ("plan", &["apply", "--dry-run"]),
    ("load", &["apply"]),
    ("import", &["apply"]),
    ("restore", &["apply"]),
    ("sync", &["apply"]),
    ("validate", &["check"]),
    ("lint", &["check"]),
    ("test", &["check"]),
    ("schema", &["check", "--schema"]),
    ("save", &["export"]),
    ("dump", &["export"]),
    ("backup", &["export"]),
    ("why", &["explain"]),
    ("trace", &["explain"]),
    ("simulate", &["explain"]),
    ("start", &["run"]),
    ("serve", &["run"]),
    ("daemon", &["run"]),
    ("server", &["run"]),
    ("clean", &["cleanup"]),
    ("prune", &["cleanup"]),
    ("diagnose", &["doctor"]),
    ("selftest", &["doctor"]),
    ("completion", &["completions"]),
    ("manual", &["man"]),
    ("version", &["--version"]),
];

/// What is no command of ours, and what does it instead.
const ELSEWHERE: [(&[&str], &str); 4] = [
    (
        &["reload", "refresh"],
        "the daemon reads its file again at SIGHUP: `systemctl reload redirector`, or `kill -HUP` its process; \
         `redirector apply FILE` applies any file",
    ),
    (
        &["stop", "restart", "kill", "shutdown", "quit", "down"],
        "the daemon ends at SIGTERM: `systemctl stop redirector`, or `kill` its process; to stop steering a namespace: \
         `redirector detach TARGET`",
    ),
    (
        &["log", "logs", "access", "journal"],
        "the daemon logs to its stderr, for a service `journalctl -u redirector`; with \
         `RUST_LOG=info,redirector::access=debug redirector run` it has a line for each connection that ends",
    ),
    (
        &["conns", "conn", "clients", "sessions", "stats", "metrics", "counters"],
        "`redirector list` shows counters, and `redirector list --json` all of them",
    ),
];

/// The command that may have been meant by a word, as words.
pub(super) fn synonym(word: &str) -> Option<&'static [&'static str]> {
    let word = word.to_lowercase();
    SYNONYMS.iter().find(|(typed, _)| *typed == word).map(|(_, meant)| *meant)
}

/// The command of ours that is most like a word.
pub(super) fn nearest_command(word: &str) -> Option<String> {
    let command = Args::command();
    let names: Vec<_> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    nearest(&word.to_lowercase(), names.iter().map(String::as_str)).map(str::to_owned)
}

/// Of a command that is none here: what does it.
pub(super) fn told_of(error: &clap::Error, words: &Line) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let typed =
        context(error, ContextKind::InvalidSubcommand).or_else(|| command(words).map(|(_, word)| word))?;
    let typed = typed.to_lowercase();
    ELSEWHERE.iter().find(|(names, _)| names.contains(&&*typed)).map(|(_, told)| (*told).to_owned())
}
