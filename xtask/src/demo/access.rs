//! The daemon's access log: one line for each connection that ended.

use std::net::SocketAddr;

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) client: SocketAddr,
    pub(crate) original_destination: SocketAddr,
    pub(crate) destination: SocketAddr,
    pub(crate) rule: String,
}

impl Access {
    /// None if the line is not of the access log.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        Some(Self {
            client: field(line, "client")?.parse().ok()?,
            original_destination: field(line, "original_destination")?.parse().ok()?,
            destination: field(line, "destination")?.parse().ok()?,
            rule: field(line, "rule")?.to_owned(),
        })
    }
}

/// The value of `name=value` or `name="value"`. Values hold no spaces.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_end_matches(',').trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::Access;

    const LINE: &str = "2026-01-01T00:00:00.000000Z DEBUG redirector::access: connection ended \
        client=10.123.0.2:40000 original_destination=10.123.0.1:8080 destination=127.0.0.1:5000 rule=rule-1 bytes_in=14";

    #[test]
    fn reads_the_fields_of_a_line() {
        let access = Access::parse(LINE).unwrap();
        assert_eq!(access.client, "10.123.0.2:40000".parse().unwrap());
        assert_eq!(access.original_destination, "10.123.0.1:8080".parse().unwrap());
        assert_eq!(access.destination, "127.0.0.1:5000".parse().unwrap());
        assert_eq!(access.rule, "rule-1");
    }

    #[test]
    fn reads_quoted_values_and_ipv6() {
        let line =
            LINE.replace("10.123.0.2:40000", "\"[fd00:123::2]:40000\"").replace("rule-1", "\"rule-1\"");
        let access = Access::parse(&line).unwrap();
        assert_eq!(access.client, "[fd00:123::2]:40000".parse().unwrap());
        assert_eq!(access.rule, "rule-1");
    }

    #[test]
    fn leaves_other_lines_alone() {
        assert_eq!(Access::parse("WARN redirector: netns:ns1 is gone client=10.123.0.2:40000"), None);
    }
}
