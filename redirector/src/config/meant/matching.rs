//! Matches that are written otherwise.

use super::{Meant, address, bare, ports};
use crate::config::{Match, ParseError, matching};

impl Meant for Match {
    fn read(text: &str) -> Result<Self, ParseError> {
        matching::parse(text)
    }

    fn guesses(text: &str) -> Vec<String> {
        let text = bare(text).to_lowercase();
        let Some((protocol, family, rest)) = protocol(&text) else { return Vec::new() };
        let mut guesses = Vec::new();
        if let Some((address, ports)) = address::unbracketed(rest) {
            guesses.extend(joined(protocol, Some(address), ports));
        }
        match rest.rsplit_once([']', ':']).map(|(address, ports)| (address.trim_end_matches(']'), ports)) {
            // All of it is one address.
            _ if rest.contains(['.', ':']) && !rest.contains("]:") && address::address(rest).is_some() => {
                guesses.extend(joined(protocol, Some(rest), ""));
            }
            Some(("" | "*" | "any" | "all" | "0.0.0.0" | "[::" | "[*", ports)) => {
                guesses.extend(joined(protocol, family, ports));
            }
            Some((address, ports)) if address::address(address).is_some() => {
                guesses.extend(joined(protocol, Some(address), ports));
            }
            _ => {}
        }
        guesses.extend(joined(protocol, family, rest));
        guesses
    }
}

/// A match of these, where they are ports and an address.
fn joined(protocol: &str, prefix: Option<&str>, text: &str) -> Option<String> {
    let ports = ports::ports(text)?;
    Some(match prefix.map(address::address) {
        None => format!("{protocol}:{ports}"),
        Some(None) => return None,
        Some(Some(prefix)) if prefix.contains(':') => format!("{protocol}:[{prefix}]:{ports}"),
        Some(Some(prefix)) => format!("{protocol}:{prefix}:{ports}"),
    })
}

/// Which protocol a text names, in front or behind; which family; and what else it says.
fn protocol(text: &str) -> Option<(&'static str, Option<&'static str>, &str)> {
    const NAMES: [(&str, &str, Option<&str>); 9] = [
        ("tcp4", "tcp", Some("0.0.0.0/0")),
        ("tcp6", "tcp", Some("::/0")),
        ("udp4", "udp", Some("0.0.0.0/0")),
        ("udp6", "udp", Some("::/0")),
        ("tcp", "tcp", None),
        ("udp", "udp", None),
        ("any", "any", None),
        ("both", "any", None),
        ("all:", "any", None),
    ];
    for (name, protocol, family) in NAMES {
        if let Some(rest) = text.strip_prefix(name)
            && !rest.starts_with(|next: char| next.is_ascii_alphabetic())
        {
            let rest = rest.trim_start_matches("://").trim_start_matches(['/', '=', ' ']);
            let rest = rest.strip_prefix(':').unwrap_or(rest);
            return Some((protocol, family, rest.trim().trim_end_matches('/')));
        }
    }
    for protocol in ["tcp", "udp"] {
        if let Some(rest) = text.strip_suffix(protocol).and_then(|rest| rest.strip_suffix(['/', ':', ' '])) {
            return Some((protocol, None, rest.trim()));
        }
    }
    match text.split_once(':') {
        Some((word, rest)) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic()) => {
            // Nobody means `tcp` by `sctp`.
            match ["tcp", "udp"].into_iter().find(|protocol| letters(protocol) == letters(word)) {
                Some(protocol) => Some((protocol, None, rest)),
                // As in `http:8080`. Another protocol is none that could be meant.
                None => ports::service(word).map(|_| ("tcp", None, rest.trim_start_matches("//"))),
            }
        }
        _ => Some(("tcp", None, text)),
    }
}

/// The letters of a word, in the order of the alphabet.
fn letters(word: &str) -> Vec<char> {
    let mut letters: Vec<_> = word.chars().collect();
    letters.sort_unstable();
    letters
}
