//! Which clients a rule takes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use ipnet::IpNet;

use super::{ParseError, meant::read_or_guess, prefix::prefix};

/// The addresses of clients: an address or a prefix, without host bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source(pub IpNet);

impl FromStr for Source {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read_or_guess("source", text)
    }
}

/// Says why a text is no source, and does not repeat all of it.
pub(super) fn parse(text: &str) -> Result<Source, ParseError> {
    if text.contains(',') {
        return Err(ParseError("one source is one address or prefix; several are given one by one".into()));
    }
    // In a match the brackets end the address; here they are as good.
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let found =
        if inner.contains(':') { prefix::<Ipv6Addr>(inner, 128) } else { prefix::<Ipv4Addr>(inner, 32) };
    found.map(Source)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = self.0;
        if net.prefix_len() == net.max_prefix_len() { net.addr().fmt(f) } else { net.fmt(f) }
    }
}

impl Source {
    /// Whether an address is among them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_are_normalised() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/32", "10.0.0.1"),
            ("10.0.0.1", "10.0.0.1"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("[fd00::]/8", ""),
            ("fd00::/8", "fd00::/8"),
            ("[fd00::/8]", "fd00::/8"),
            ("[fd00::1]", "fd00::1"),
        ] {
            if shown.is_empty() {
                assert!(text.parse::<Source>().is_err(), "{text}");
                continue;
            }
            assert_eq!(text.parse::<Source>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<Source>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn errors_name_what_is_wrong() {
        for (text, part) in [
            ("", "not an IPv4 address"),
            ("10.0.0.1/8", "did you mean `10.0.0.0/8`?"),
            ("10.0.0.0/33", "not an IPv4 address"),
            ("fd00::1/8", "did you mean `fd00::/8`?"),
            ("::ffff:10.0.0.1", "did you mean `10.0.0.1`?"),
            ("localhost", "not an IPv4 address"),
            ("10.0.0.1:80", "not an IPv6 address"),
        ] {
            let error = text.parse::<Source>().unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with("source `"), "{text}: {error}");
        }
    }
}
