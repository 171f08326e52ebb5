//! What `attach` wants to know of a namespace. Called inside it, see [`super::enter()`].

use std::{fs, io};

use ipnet::IpNet;

use super::InterfaceIndex;

/// A namespace's network, as far as steering depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Whether the loopback device is up.
    pub loopback_up: bool,
    /// `net.core.somaxconn`, which caps every backlog.
    pub somaxconn: u32,
    /// `net.ipv4.ip_local_port_range`, both ends included, which is for IPv6 too.
    pub local_ports: (u16, u16),
    /// What is delivered locally: all local routes, of all tables.
    pub local: Vec<IpNet>,
    /// All interfaces.
    pub interfaces: Vec<(String, InterfaceIndex)>,
}

impl Survey {
    /// Whether any address of a prefix is delivered locally.
    #[must_use]
    pub fn is_local(&self, prefix: &IpNet) -> bool {
        self.local.iter().any(|local| local.contains(prefix) || prefix.contains(local))
    }
}

/// Looks at the namespace of this thread.
///
/// # Errors
///
/// When `/proc` or the interfaces cannot be read.
pub fn survey() -> io::Result<Survey> {
    let loopback_up = InterfaceIndex::LOOPBACK.is_up()?;
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn")?;
    let somaxconn = somaxconn.trim().parse().map_err(io::Error::other)?;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ends = range.split_ascii_whitespace().map(str::parse);
    let (Some(Ok(low)), Some(Ok(high))) = (ends.next(), ends.next()) else {
        return Err(io::Error::other(format!("ip_local_port_range is `{}`", range.trim())));
    };
    let local_ports = (low, high);
    let (local, interfaces) = (super::routes::local()?, super::interfaces()?);
    Ok(Survey { loopback_up, somaxconn, local_ports, local, interfaces })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_can_be_surveyed() {
        let survey = survey().unwrap();
        assert!(survey.somaxconn > 0);
        assert!(!survey.loopback_up || survey.is_local(&"127.0.0.1/32".parse().unwrap()));
    }

    #[test]
    fn a_prefix_is_local_when_any_of_its_addresses_is() {
        let local = ["127.0.0.0/8", "10.0.0.1/32", "fd00::1/128"].map(|net| net.parse().unwrap()).to_vec();
        let survey = Survey {
            loopback_up: true,
            somaxconn: 4096,
            local_ports: (32_768, 60_999),
            local,
            interfaces: Vec::new(),
        };
        for (prefix, expected) in [
            ("127.0.0.1/32", true),
            ("10.0.0.0/8", true),
            ("10.0.0.2/32", false),
            ("0.0.0.0/0", true),
            ("fd00::/64", true),
            ("fd00::2/128", false),
        ] {
            assert_eq!(survey.is_local(&prefix.parse().unwrap()), expected, "{prefix}");
        }
    }
}
