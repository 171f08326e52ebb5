//! Ports that are written otherwise.

/// Names that people write for ports: few, and the same everywhere.
const SERVICES: [(&str, u16); 18] = [
    ("http", 80),
    ("https", 443),
    ("www", 80),
    ("ssh", 22),
    ("ftp", 21),
    ("smtp", 25),
    ("dns", 53),
    ("domain", 53),
    ("pop3", 110),
    ("ntp", 123),
    ("imap", 143),
    ("ldap", 389),
    ("syslog", 514),
    ("mysql", 3306),
    ("postgres", 5432),
    ("postgresql", 5432),
    ("amqp", 5672),
    ("redis", 6379),
];

/// The port that a word names.
pub(super) fn service(word: &str) -> Option<u16> {
    SERVICES.iter().find(|(name, _)| *name == word).map(|(_, port)| *port)
}

/// The set of ports that a text may mean, as it is written.
pub(super) fn ports(text: &str) -> Option<String> {
    if matches!(text, "" | "*" | "any" | "all" | "0" | "0-65535" | "-") {
        return Some("*".into());
    }
    let items = text.split([',', ';', ' ', '+', '|']).filter(|item| !item.is_empty());
    let items: Vec<_> = items.map(item).collect::<Option<_>>()?;
    (!items.is_empty()).then(|| items.join(","))
}

/// A port or a range.
fn item(text: &str) -> Option<String> {
    // As in `tcp:80,tcp:443`, and `80/tcp`.
    let text = text.trim_start_matches("tcp:").trim_start_matches("udp:").trim_start_matches(':');
    let text = text.trim_end_matches("/tcp").trim_end_matches("/udp");
    let text = text.replace("..", "-").replace([':', '–'], "-");
    let Some((first, last)) = text.split_once('-') else {
        return Some(port(&text)?.to_string());
    };
    let first = if first.is_empty() || first == "0" { 1 } else { port(first)? };
    let last = if last.is_empty() { u16::MAX } else { port(last)? };
    Some(format!("{}-{}", first.min(last), first.max(last)))
}

fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    text.parse().ok().filter(|port| *port > 0 && !text.starts_with('+')).or_else(|| service(text))
}
