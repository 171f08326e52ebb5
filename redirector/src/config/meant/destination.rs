//! Destinations that are written otherwise.

use std::net::{IpAddr, Ipv6Addr};

use super::{Meant, address::unbracketed, bare, meant, ports::service, word_like};
use crate::config::{Destination, ParseError, Target, destination};

/// Destinations that are one word.
const WORDS: [&str; 4] = ["original", "reject", "drop", "pass"];

/// What a URL begins with, and which port it means by itself.
const SCHEMES: [(&str, Option<u16>); 8] = [
    ("http://", Some(80)),
    ("https://", Some(443)),
    ("tcp://", None),
    ("tcp4:", None),
    ("tcp6:", None),
    ("tcp:", None),
    ("http:", Some(80)),
    ("https:", Some(443)),
];

impl Meant for Destination {
    fn read(text: &str) -> Result<Self, ParseError> {
        destination::parse(text)
    }

    fn guesses(text: &str) -> Vec<String> {
        let text = bare(text);
        let lower = text.to_lowercase();
        let word = word_like(&lower, &WORDS).filter(|_| lower.bytes().all(|byte| byte.is_ascii_alphabetic()));
        let mut guesses: Vec<String> = word.map(str::to_owned).into_iter().collect();
        if let Some(path) = lower.strip_prefix("unix").filter(|path| path.starts_with([':', '=', '/', ' '])) {
            let path = text[text.len() - path.len()..].trim_start_matches([':', '=', ' ']);
            let name = path.trim_start_matches('/');
            guesses.push(if name.starts_with('@') {
                format!("unix:{name}")
            } else {
                format!("unix:/{name}")
            });
            return guesses;
        }
        if text.starts_with(['/', '@']) {
            guesses.push(format!("unix:{text}"));
            return guesses;
        }
        let scheme = SCHEMES.iter().find(|(scheme, _)| lower.starts_with(scheme));
        let (rest, port) = scheme.map_or((text, None), |(scheme, port)| (&text[scheme.len()..], *port));
        // Of several the first.
        let first = rest.split([',', ';']).next().unwrap_or(rest).trim_start_matches("//").trim();
        let first = first.trim_end_matches("/tcp").trim_end_matches('/');
        let first = first.split_once('@').map_or(first, |(first, _)| first);
        if scheme.is_none() {
            inside(first, &mut guesses);
        }
        let first = if scheme.is_some() { first.split('/').next().unwrap_or(first) } else { first };
        guesses.extend(endpoints(first, "127.0.0.1", port.unwrap_or(80)));
        guesses
    }
}

/// Guesses at an address inside another namespace.
fn inside(text: &str, guesses: &mut Vec<String>) {
    let (target, endpoint) = match text.rsplit_once('/') {
        // `127.0.0.1/80`.
        Some((address, port)) if address.parse::<IpAddr>().is_ok() => {
            guesses.extend(endpoints(&format!("{address}:{port}"), "127.0.0.1", 80));
            return;
        }
        Some(parts) => parts,
        // `docker:web:80`, `docker:web`; `docker:514` may be a host.
        None => match text.split_once(':') {
            Some((kind, rest)) if is_kind(kind) => {
                let (name, port) = rest.split_once(':').unwrap_or((rest, ""));
                if rest.parse::<u16>().is_ok() {
                    guesses.push(format!("{kind}.:{rest}"));
                }
                (&text[..kind.len() + 1 + name.len()], port)
            }
            _ => return,
        },
    };
    let targets =
        if target.parse::<Target>().is_ok() { vec![target.to_owned()] } else { meant::<Target>(target) };
    for target in targets {
        for endpoint in endpoints(endpoint, "127.0.0.1", 80) {
            guesses.push(format!("{target}/{endpoint}"));
        }
        // A name is none there.
        if let Some((host, port)) = endpoint.rsplit_once(':')
            && host.trim_matches(['[', ']']).parse::<IpAddr>().is_err()
        {
            guesses.push(format!("{target}/127.0.0.1:{port}"));
        }
    }
}

fn is_kind(word: &str) -> bool {
    destination::is_keyword(word)
}

/// Guesses at `HOST:PORT`.
fn endpoints(text: &str, own: &str, default: u16) -> Vec<String> {
    let mut guesses = Vec::new();
    if let Some((address, port)) = unbracketed(text) {
        guesses.push(format!("[{address}]:{port}"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        guesses.push(format!("[{text}]:{default}"));
    }
    let text = &*text.replacen(' ', ":", 1);
    if let Some((address, port)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let port = port.trim_start_matches(':');
        let address = if address == "::" { "::1" } else { address };
        let fixed = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        guesses.push(if port.is_empty() { format!("{fixed}:{default}") } else { format!("{fixed}:{port}") });
        return guesses;
    }
    match text.rsplit_once(':') {
        None if text.is_empty() => guesses.push(format!("{own}:{default}")),
        None if text.parse::<u16>().is_ok() => guesses.push(format!("{own}:{text}")),
        None => guesses.push(format!("{text}:{default}")),
        Some((host, port)) => {
            let host = if matches!(host, "" | "*" | "0.0.0.0") { own } else { host };
            let port = match port {
                "" => default.to_string(),
                "any" | "all" | "0" => "*".into(),
                range if range.contains('-') => "*".into(),
                port => {
                    service(&port.to_lowercase()).map_or_else(|| port.to_owned(), |port| port.to_string())
                }
            };
            guesses.push(format!("{host}:{port}"));
        }
    }
    guesses
}
