//! Targets that are written otherwise.

use super::{Meant, bare, very_near};
use crate::config::{ParseError, Target, target};

/// What a target begins with, and what people write for it.
const KINDS: [(&str, &str); 14] = [
    ("netns", "netns"),
    ("ns", "netns"),
    ("netnamespace", "netns"),
    ("namespace", "netns"),
    ("docker", "docker"),
    ("container", "docker"),
    ("podman", "podman"),
    ("path", "path"),
    ("file", "path"),
    ("pid", "pid"),
    ("process", "pid"),
    ("cookie", "cookie"),
    ("self", "self"),
    ("host", "host"),
];

/// Where `ip netns` keeps its names.
const NAMED: [&str; 2] = ["/run/netns/", "/var/run/netns/"];

impl Meant for Target {
    fn read(text: &str) -> Result<Self, ParseError> {
        target::parse(text)
    }

    fn guesses(text: &str) -> Vec<String> {
        let text = bare(text);
        let whole = text.trim_end_matches(':').to_lowercase();
        match &*whole {
            "localhost" | "localnet" | "node" | "127.0.0.1" | "host" => return vec!["host".into()],
            "self" | "me" | "this" | "." => return vec!["self".into()],
            _ => {}
        }
        let mut guesses = Vec::new();
        let (word, rest) = text.split_once([':', '=', ' ']).unwrap_or((text, ""));
        let rest = rest.trim_start_matches("//").trim();
        let known = KINDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, kind)| *kind);
        let known = known.or_else(|| very_near(&word.to_lowercase(), KINDS.map(|(_, kind)| kind)));
        if let Some(kind) = known.filter(|_| !rest.is_empty()) {
            of_kind(kind, rest, &mut guesses);
        } else if let Some((word, name)) = text.split_once('/')
            && let Some((_, kind)) = KINDS.iter().find(|(one, _)| *one == word)
        {
            of_kind(kind, name, &mut guesses);
        } else if text.starts_with('/') {
            guesses.push(format!("path:{text}"));
        } else {
            let name = if text.parse::<u32>().is_ok() {
                guesses.push(format!("pid:{text}"));
                text
            } else {
                // As in `web:80`.
                text.split_once(':').map_or(text, |(name, _)| name)
            };
            guesses.extend(["docker", "podman", "netns"].map(|kind| format!("{kind}:{name}")));
        }
        guesses
    }
}

/// Guesses at what a kind is followed by.
fn of_kind(kind: &str, rest: &str, guesses: &mut Vec<String>) {
    if matches!(kind, "self" | "host") {
        guesses.push(kind.into());
        return;
    }
    guesses.push(format!("{kind}:{rest}"));
    match kind {
        "netns" => {
            guesses.extend(
                NAMED.iter().find_map(|named| rest.strip_prefix(named)).map(|name| format!("netns:{name}")),
            );
            if rest.starts_with('/') {
                guesses.push(format!("path:{rest}"));
            }
        }
        "path" if !rest.starts_with('/') => guesses.push(format!("path:/{rest}")),
        "pid" if rest == "self" => guesses.push("self".into()),
        "docker" | "podman" => {
            // `/web` as `inspect` shows it, a destination, a port.
            let name = rest.trim_start_matches('/');
            let name = name.split_once([':', '/']).map_or(name, |(name, _)| name);
            if !rest.trim_start_matches('/').contains('/') || rest.contains(':') {
                guesses.push(format!("{kind}:{}", name.trim()));
            }
        }
        _ => {}
    }
}
