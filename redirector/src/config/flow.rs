//! One packet that is asked about.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use redirector_ebpf::{PROTOCOL_TCP, PROTOCOL_UDP};

use super::{Interface, ParseError};

/// The transport protocol of a packet, of which there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP: the packet is a SYN.
    Tcp,
    /// UDP: a datagram of which no connected socket knows.
    Udp,
}

impl Transport {
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Tcp => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// `PROTOCOL SOURCE:PORT -> DESTINATION:PORT [dev NAME]`: the first packet of a connection, or a datagram. Both ends are of one
/// family.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlowSpec {
    /// Of the packet.
    pub protocol: Transport,
    /// Who sends it.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
    /// The interface of the target by which it comes. `None`: by whichever it would come.
    pub device: Option<Interface>,
}

impl FromStr for FlowSpec {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text).map_err(|ParseError(why)| ParseError(format!("flow `{}`: {why}", text.escape_debug())))
    }
}

const FORM: &str =
    "a flow is `PROTOCOL SOURCE:PORT -> DESTINATION:PORT`, as `tcp 10.0.0.2:40000 -> 10.0.0.1:80`";

fn parse(text: &str) -> Result<FlowSpec, ParseError> {
    let Some((from, to)) = text.split_once("->") else {
        return Err(ParseError(format!("there is no `->`; {FORM}")));
    };
    let (from, to): (Vec<_>, Vec<_>) = (from.split_whitespace().collect(), to.split_whitespace().collect());
    let (protocol, source) = match from[..] {
        [protocol, source] => (transport(protocol)?, source),
        [one] if transport(one).is_ok() => return Err(ParseError(format!("the source is missing; {FORM}"))),
        [source] => {
            return Err(ParseError(format!("the protocol is missing; write `tcp {}`", shown(source))));
        }
        [] => return Err(ParseError(format!("protocol and source are missing; {FORM}"))),
        [_, _, more, ..] => return Err(ParseError(format!("`{}` is too much; {FORM}", shown(more)))),
    };
    let (destination, device) = match to[..] {
        [destination] => (destination, None),
        [_, "dev", name] if name.starts_with('!') => {
            return Err(ParseError("a packet comes by one interface: write `dev NAME` without `!`".into()));
        }
        [destination, "dev", name] => (destination, Some(name.parse()?)),
        [destination, "dev"] => {
            let why = format!("the interface is missing; write `{} dev NAME`", shown(destination));
            return Err(ParseError(why));
        }
        [] => return Err(ParseError(format!("the destination is missing; {FORM}"))),
        [destination, more, ..] => {
            let why = format!(
                "`{}` is too much; an interface is named by `{} dev NAME`",
                shown(more),
                shown(destination)
            );
            return Err(ParseError(why));
        }
    };
    let (source, destination) = (sender(end("source", source)?)?, end("destination", destination)?);
    if source.is_ipv4() != destination.is_ipv4() {
        let family = |end: SocketAddr| if end.is_ipv4() { "IPv4" } else { "IPv6" };
        return Err(ParseError(format!(
            "source `{source}` is {}, destination `{destination}` is {}; a packet has one family",
            family(source),
            family(destination)
        )));
    }
    Ok(FlowSpec { protocol, source, destination, device })
}

fn shown(text: &str) -> impl fmt::Display {
    text.escape_debug()
}

fn transport(text: &str) -> Result<Transport, ParseError> {
    match text {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        "any" => Err(ParseError("a packet is of one protocol, not `any`; write `tcp` or `udp`".into())),
        _ => {
            let why = format!("unknown protocol `{}`; a flow begins with `tcp` or `udp`", shown(text));
            Err(ParseError(why))
        }
    }
}

/// An address with a port, of a packet that arrives somewhere.
fn end(what: &str, text: &str) -> Result<SocketAddr, ParseError> {
    parse_end(text).map_err(|ParseError(why)| ParseError(format!("{what} `{}`: {why}", shown(text))))
}

fn parse_end(text: &str) -> Result<SocketAddr, ParseError> {
    let missing = |address: &dyn fmt::Display| {
        Err(ParseError(format!("the port is missing; write `{address}:PORT`, as `{address}:80`")))
    };
    if let Some(bracketed) = text.strip_prefix('[') {
        let Some((address, rest)) = bracketed.split_once(']') else {
            return Err(ParseError("after `[ADDRESS` comes `]:PORT`".into()));
        };
        if let Ok(v4) = address.parse::<Ipv4Addr>() {
            return Err(ParseError(format!("an IPv4 address has no brackets; write `{v4}{}`", shown(rest))));
        }
        let address: Ipv6Addr = one_address(address, "an IPv6")?;
        return match rest.strip_prefix(':') {
            None if rest.is_empty() => missing(&format!("[{address}]")),
            None => Err(ParseError("after `[ADDRESS]` comes `:PORT`".into())),
            Some(port) => usable(address.into(), self::port(port)?),
        };
    }
    let Some((address, port)) = text.rsplit_once(':') else {
        let address: Ipv4Addr = one_address(text, "an IPv4")?;
        return missing(&address);
    };
    if address.contains(':') {
        // Where an unbracketed address ends and the port begins cannot be told.
        let whole = text.parse::<Ipv6Addr>().is_ok();
        let corrected = match address.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]:{port}"),
            Err(_) if whole => format!("[{text}]:PORT"),
            Err(_) => return Err(ParseError(format!("`{}` is not an IPv6 address", shown(address)))),
        };
        return Err(ParseError(format!("an IPv6 address needs brackets; write `{}`", shown(&corrected))));
    }
    let address: Ipv4Addr = one_address(address, "an IPv4")?;
    usable(address.into(), self::port(port)?)
}

fn one_address<A: FromStr>(text: &str, family: &str) -> Result<A, ParseError> {
    if let Some((address, _)) = text.split_once('/')
        && address.parse::<A>().is_ok()
    {
        let why = format!("a packet has one address; write `{}` without its length", shown(address));
        return Err(ParseError(why));
    }
    if let Some((address, device)) = text.split_once('%')
        && address.parse::<A>().is_ok()
    {
        let why = format!("the interface goes to the end of the flow; write `dev {}`", shown(device));
        return Err(ParseError(why));
    }
    text.parse().map_err(|_| ParseError(format!("`{}` is not {family} address", shown(text))))
}

fn port(text: &str) -> Result<u16, ParseError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(0) => Err(ParseError("a packet has no port 0; ports are 1 to 65535".into())),
        Ok(port) if digits => Ok(port),
        _ => Err(ParseError(format!("`{}` is not a port; a packet has one, 1 to 65535", shown(text)))),
    }
}

fn usable(address: IpAddr, port: u16) -> Result<SocketAddr, ParseError> {
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(ParseError(format!("`{v6}` is IPv4-mapped; write `{v4}:{port}`")));
    }
    if address.is_unspecified() {
        return Err(ParseError(format!("`{address}` is no packet's address")));
    }
    Ok(SocketAddr::new(address, port))
}

/// A group sends nothing.
fn sender(address: SocketAddr) -> Result<SocketAddr, ParseError> {
    if address.ip().is_multicast() {
        return Err(ParseError(format!("`{}` is of a group, and no packet's source", address.ip())));
    }
    Ok(address)
}

impl fmt::Display for FlowSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, source, destination, device } = self;
        write!(f, "{protocol} {source} -> {destination}")?;
        device.iter().try_for_each(|device| write!(f, " dev {device}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_are_normalised() {
        for (text, shown) in [
            ("tcp 10.0.0.2:40000 -> 10.0.0.1:80", ""),
            ("udp 10.0.0.2:1 -> 10.0.0.1:65535 dev eth0", ""),
            ("tcp [fd00::2]:40000 -> [fd00::1]:80 dev eth0.1", ""),
            (" tcp  10.0.0.2:40000->10.0.0.1:80\tdev lo ", "tcp 10.0.0.2:40000 -> 10.0.0.1:80 dev lo"),
            ("tcp [fd00:0:0::2]:1 -> [::1]:080", "tcp [fd00::2]:1 -> [::1]:80"),
        ] {
            let shown = if shown.is_empty() { text } else { shown };
            assert_eq!(text.parse::<FlowSpec>().unwrap().to_string(), shown);
            assert_eq!(shown.parse::<FlowSpec>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn errors_name_what_is_wrong_and_show_the_corrected_form() {
        for (text, part) in [
            ("", "no `->`"),
            ("tcp 10.0.0.2:1 10.0.0.1:80", "no `->`"),
            ("-> 10.0.0.1:80", "protocol and source are missing"),
            ("tcp -> 10.0.0.1:80", "the source is missing"),
            ("10.0.0.2:1 -> 10.0.0.1:80", "write `tcp 10.0.0.2:1`"),
            ("tcp 10.0.0.2:1 ->", "the destination is missing"),
            ("tcp 10.0.0.2:1 x -> 10.0.0.1:80", "`x` is too much"),
            ("any 10.0.0.2:1 -> 10.0.0.1:80", "write `tcp` or `udp`"),
            ("sctp 10.0.0.2:1 -> 10.0.0.1:80", "unknown protocol `sctp`"),
            ("TCP 10.0.0.2:1 -> 10.0.0.1:80", "unknown protocol `TCP`"),
            ("tcp 10.0.0.2 -> 10.0.0.1:80", "source `10.0.0.2`: the port is missing; write `10.0.0.2:PORT`"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1", "destination `10.0.0.1`: the port is missing"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:", "`` is not a port"),
            ("tcp 10.0.0.2:0 -> 10.0.0.1:80", "source `10.0.0.2:0`: a packet has no port 0"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:0", "destination `10.0.0.1:0`: a packet has no port 0"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:65536", "`65536` is not a port"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:+80", "`+80` is not a port"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:80-90", "`80-90` is not a port"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:*", "`*` is not a port"),
            ("tcp 10.0.0.0/8:1 -> 10.0.0.1:80", "write `10.0.0.0` without its length"),
            ("tcp web:1 -> 10.0.0.1:80", "`web` is not an IPv4 address"),
            ("tcp 10.0.0.2:1 -> 10.0.0:80", "`10.0.0` is not an IPv4 address"),
            ("tcp fd00::2:1 -> [fd00::1]:80", "write `[fd00::2]:1`"),
            ("tcp [fd00::2]:1 -> fd00::1:80", "destination `fd00::1:80`: an IPv6 address needs brackets"),
            ("tcp [fd00::2]:1 -> fd00::", "write `[fd00::]:PORT`"),
            ("tcp [fd00::2] -> [fd00::1]:80", "write `[fd00::2]:PORT`"),
            ("tcp [fd00::2]1 -> [fd00::1]:80", "after `[ADDRESS]` comes `:PORT`"),
            ("tcp [fd00::2 -> [fd00::1]:80", "comes `]:PORT`"),
            ("tcp [10.0.0.2]:1 -> 10.0.0.1:80", "write `10.0.0.2:1`"),
            ("tcp [fd00::/64]:1 -> [fd00::1]:80", "without its length"),
            ("tcp [fe80::2%eth0]:1 -> [fe80::1]:80", "write `dev eth0`"),
            ("tcp [::ffff:10.0.0.2]:1 -> 10.0.0.1:80", "write `10.0.0.2:1`"),
            ("tcp 10.0.0.2:1 -> 0.0.0.0:80", "is no packet's address"),
            (
                "tcp 10.0.0.2:1 -> [fd00::1]:80",
                "source `10.0.0.2:1` is IPv4, destination `[fd00::1]:80` is IPv6",
            ),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:80 dev", "write `10.0.0.1:80 dev NAME`"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:80 eth0", "`10.0.0.1:80 dev NAME`"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:80 dev eth0 eth1", "`dev` is too much"),
            ("tcp 10.0.0.2:1 -> 10.0.0.1:80 dev a/b", "interface `a/b`"),
        ] {
            let error = text.parse::<FlowSpec>().unwrap_err().to_string();
            assert!(error.contains(part) && error.starts_with("flow `"), "{text}: {error}");
        }
    }
}
