//! Which traffic a rule takes.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use ipnet::IpNet;

use super::{ParseError, PortSet, Protocol, Source, meant::read_or_guess, ports::without, prefix::prefix};

/// `PROTOCOL:[PREFIX:]PORTS`: the original destinations that a rule takes. Without a prefix, those of both families.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// `tcp`, `udp`, or `any` for both.
    pub protocol: Protocol,
    /// `None` is every address.
    pub prefix: Option<IpNet>,
    /// Ports of the original destination.
    pub ports: PortSet,
}

impl Match {
    /// Whether a connection of this protocol ([`redirector_ebpf::PROTOCOL_TCP`] or `_UDP`) to this address and port is one of
    /// it.
    #[must_use]
    pub fn contains(&self, protocol: u32, destination: SocketAddr) -> bool {
        self.protocol.includes(protocol)
            && self.ports.contains(destination.port())
            && self.prefix.is_none_or(|net| net.contains(&destination.ip()))
    }

    /// Whether a client of one of these sources (every client without any) can connect to an address of it.
    pub(super) fn can_come_from(&self, sources: &[Source]) -> bool {
        let is_ipv6 = |net: IpNet| net.addr().is_ipv6();
        let prefix = self.prefix.map(is_ipv6);
        sources.is_empty()
            || prefix.is_none()
            || sources.iter().any(|source| Some(is_ipv6(source.0)) == prefix)
    }

    /// Whether anything of it is left, of a family that the sources have, without what is excepted wherever it matches.
    pub(super) fn is_left(&self, sources: &[Source], except: &[Self]) -> bool {
        let all = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let families = all.map(|address: IpAddr| IpNet::new(address, 0).expect("0 is a length"));
        let mut kinds =
            self.protocol.each().flat_map(|protocol| families.map(move |family| (protocol, family)));
        kinds.any(|(protocol, family)| {
            let is_in = |net: IpNet| net.addr().is_ipv4() == family.addr().is_ipv4();
            let can_be = self.prefix.is_none_or(is_in)
                && Self { prefix: Some(family), ..self.clone() }.can_come_from(sources);
            let here = self.prefix.unwrap_or(family);
            let covering = except.iter().filter(|one| {
                one.protocol.includes(protocol)
                    && one.prefix.is_none_or(|net| is_in(net) && net.contains(&here))
            });
            let left =
                covering.fold(self.ports.ranges().to_vec(), |left, one| without(&left, one.ports.ranges()));
            can_be && !left.is_empty()
        })
    }

    /// Whether there is a protocol, an address and a port in both.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let prefixes = match (self.prefix, other.prefix) {
            (Some(one), Some(two)) => one.contains(&two) || two.contains(&one),
            (None, _) | (_, None) => true,
        };
        self.protocol.each().any(|protocol| other.protocol.includes(protocol))
            && prefixes
            && self.ports.ranges().iter().any(|(first, last)| {
                other.ports.ranges().iter().any(|(from, to)| from <= last && first <= to)
            })
    }
}

impl FromStr for Match {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read_or_guess("match", text)
    }
}

/// Says why a text is no match, and does not repeat it.
pub(super) fn parse(text: &str) -> Result<Match, ParseError> {
    let Some((protocol, rest)) = text.split_once(':') else {
        return Err(ParseError("needs a protocol, as `PROTOCOL:PORTS` or `PROTOCOL:ADDRESS:PORTS`".into()));
    };
    let Some(protocol) = Protocol::ALL.into_iter().find(|one| one.name() == protocol) else {
        return Err(ParseError(format!(
            "unknown protocol `{}`; a match begins with `tcp:`, `udp:` or `any:`",
            protocol.escape_debug()
        )));
    };
    if let Some(bracketed) = rest.strip_prefix('[') {
        let Some((address, ports)) = bracketed.split_once("]:") else {
            return Err(ParseError("after `[ADDRESS]` comes `:PORTS`".into()));
        };
        let prefix = prefix::<Ipv6Addr>(address, 128)?;
        return Ok(Match { protocol, prefix: Some(prefix), ports: ports.parse()? });
    }
    match rest.rsplit_once(':') {
        None if rest.parse::<Ipv4Addr>().is_ok() || rest.parse::<ipnet::Ipv4Net>().is_ok() => {
            Err(ParseError("the ports are missing; all of them are `*`".into()))
        }
        None => Ok(Match { protocol, prefix: None, ports: rest.parse()? }),
        Some((address, ports)) if address.contains(':') => {
            // Where an unbracketed address ends and the ports begin cannot be told.
            let _ports = ports;
            Err(ParseError("an IPv6 address needs brackets".into()))
        }
        Some((address, ports)) => {
            Ok(Match { protocol, prefix: Some(prefix::<Ipv4Addr>(address, 32)?), ports: ports.parse()? })
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, prefix, ports } = self;
        match prefix {
            None => write!(f, "{protocol}:{ports}"),
            Some(net) => {
                let host = net.prefix_len() == net.max_prefix_len();
                match (net, host) {
                    (IpNet::V4(net), true) => write!(f, "{protocol}:{}:{ports}", net.addr()),
                    (IpNet::V4(net), false) => write!(f, "{protocol}:{net}:{ports}"),
                    (IpNet::V6(net), true) => write!(f, "{protocol}:[{}]:{ports}", net.addr()),
                    (IpNet::V6(net), false) => write!(f, "{protocol}:[{net}]:{ports}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_are_normalised() {
        for (text, shown) in [
            ("tcp:8080", "tcp:8080"),
            ("tcp:443,80", "tcp:80,443"),
            ("tcp:*", "tcp:*"),
            ("tcp:all", "tcp:*"),
            ("tcp:10.0.0.1:80", "tcp:10.0.0.1:80"),
            ("tcp:10.0.0.1/32:80", "tcp:10.0.0.1:80"),
            ("tcp:10.0.0.0/8:80-90", "tcp:10.0.0.0/8:80-90"),
            ("tcp:0.0.0.0/0:80", "tcp:0.0.0.0/0:80"),
            ("tcp:[fd00::1]:80", "tcp:[fd00::1]:80"),
            ("tcp:[fd00::/16]:*", "tcp:[fd00::/16]:*"),
            ("tcp:[::/0]:80", "tcp:[::/0]:80"),
            ("udp:53", "udp:53"),
            ("any:[fd00::]:53", "any:[fd00::]:53"),
        ] {
            assert_eq!(text.parse::<Match>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<Match>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn errors_show_the_corrected_form() {
        for (text, part) in [
            ("8080", "`tcp:8080`"),
            ("sctp:53", "unknown protocol `sctp`"),
            ("udp:10.0.0.1", "`udp:10.0.0.1:*`"),
            ("any:fd00::1:80", "`any:[fd00::1:80]:*`"),
            ("tcp:", "is not a port"),
            ("tcp:10.0.0.1", "`tcp:10.0.0.1:*`"),
            ("tcp:10.0.0.0/8", "`tcp:10.0.0.0/8:*`"),
            ("tcp:10.0.0.1/8:80", "`tcp:10.0.0.0/8:80`"),
            ("tcp:10.0.0.1/33:80", "not an IPv4"),
            ("tcp:10.0.0:80", "not an IPv4"),
            ("tcp:fd00::1:80", "`tcp:[fd00::1]:80` or `tcp:[fd00::1:80]:*`"),
            ("tcp:fd00::/16:80", "`tcp:[fd00::/16]:80`"),
            ("tcp:[fd00::1]", "`:PORTS`"),
            ("tcp:[fd00::1/16]:80", "`tcp:[fd00::/16]:80`"),
            ("tcp:[10.0.0.1]:80", "not an IPv6"),
            ("tcp:[::ffff:10.0.0.1]:80", "`tcp:10.0.0.1:80`"),
            ("tcp:[::ffff:0:0/96]:80", "`tcp:0.0.0.0/0:80`"),
            ("tcp:90-80", "`tcp:80-90`"),
            ("tcp:0", "port 0"),
        ] {
            let error = text.parse::<Match>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
