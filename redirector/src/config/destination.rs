//! Where a rule's connections go.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use super::{
    ParseError, Target,
    meant::read_or_guess,
    target::{self, KEYWORDS},
};

/// `original`, `reject`, `drop`, `pass`, `unix:/PATH`, `unix:@NAME`, `HOST:PORT` or `TARGET/IP:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// The application in the same namespace, at the original destination.
    Original,
    /// Refuse with RST.
    Reject,
    /// No answer at all.
    Drop,
    /// Whoever owns the socket: the program stays out of it.
    Pass,
    /// The program that holds the rule's listeners; only `redirector exec` and the hand-off socket make it.
    Handoff,
    /// A stream socket of the daemon's mount namespace; or, with `@` in front of its name, an abstract one of its network
    /// namespace.
    Unix(PathBuf),
    /// A TCP endpoint, dialled from the daemon's namespace.
    Host {
        /// Address or name.
        host: Host,
        /// Fixed, or the port that the client asked for.
        port: DestinationPort,
    },
    /// A TCP endpoint, dialled from inside another namespace.
    Inside {
        /// That namespace.
        target: Target,
        /// An address as it is there, loopback ones included.
        address: IpAddr,
        /// Fixed, or the port that the client asked for.
        port: DestinationPort,
    },
}

/// An address, or a name that is resolved off the accept path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A literal address.
    Address(IpAddr),
    /// A host name, 1 to 253 bytes.
    Name(String),
}

/// The port of a `HOST:PORT` destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DestinationPort {
    /// 1 to 65,535.
    Fixed(u16),
    /// `*`: the port of the original destination.
    Client,
}

impl Destination {
    /// Why a rule with it cannot follow a container, where it is a process.
    #[must_use]
    pub fn cannot_be_followed(&self) -> String {
        format!("destination `{self}`: a process cannot be found again, and the rule is to follow")
    }
}

const FORMS: &str =
    "`HOST:PORT`, `TARGET/IP:PORT`, `original`, `unix:/PATH`, `unix:@NAME`, `reject`, `drop` or `pass`";

/// The length of `sun_path`, less the NUL.
const MAX_UNIX_PATH: usize = 107;

impl FromStr for Destination {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read_or_guess("destination", text)
    }
}

/// Whether a word begins a target, and so is no host.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word)
}

/// Says why a text is no destination, and does not repeat it.
pub(super) fn parse(text: &str) -> Result<Destination, ParseError> {
    match text {
        "original" => return Ok(Destination::Original),
        "reject" => return Ok(Destination::Reject),
        "drop" => return Ok(Destination::Drop),
        "pass" => return Ok(Destination::Pass),
        "handoff" => return Ok(Destination::Handoff),
        _ => {}
    }
    if let Some(path) = text.strip_prefix("unix:") {
        // As in a URL.
        let path = path.strip_prefix("//").filter(|path| path.starts_with('/')).unwrap_or(path);
        return if path.starts_with("//@") {
            Err(ParseError("an abstract socket is named by `unix:@NAME`".into()))
        } else if path == "@" {
            Err(ParseError("an abstract socket has a name after its `@`".into()))
        } else if !path.starts_with(['/', '@']) {
            Err(ParseError("the path is not absolute".into()))
        } else if path.contains('\0') {
            Err(ParseError("a path holds no NUL".into()))
        } else if path.len() > MAX_UNIX_PATH {
            Err(ParseError(format!("the path is longer than the {MAX_UNIX_PATH} bytes of a socket address")))
        } else {
            Ok(Destination::Unix(path.into()))
        };
    }
    if let Some((target, endpoint)) = text.rsplit_once('/') {
        return parse_inside(target, endpoint);
    }
    let (host, port) = parse_endpoint(text)?;
    Ok(Destination::Host { host, port })
}

/// `HOST:PORT`.
fn parse_endpoint(text: &str) -> Result<(Host, DestinationPort), ParseError> {
    if text.contains([',', ';']) {
        let why = "a rule has one destination; for several, run a balancer as CMD of `redirector exec`";
        return Err(ParseError(why.into()));
    }
    let Some((host, port)) = text.rsplit_once(':').filter(|_| !text.ends_with(']')) else {
        let why =
            if text.is_empty() { format!("a destination is {FORMS}") } else { "the port is missing".into() };
        return Err(ParseError(why));
    };
    let host = parse_host(host)?;
    let port = match port {
        "*" => DestinationPort::Client,
        _ => match port.parse::<u16>() {
            Ok(number) if number > 0 && !port.starts_with('+') => DestinationPort::Fixed(number),
            _ => {
                return Err(ParseError(format!(
                    "`{}` is not a port: 1 to 65535, or `*` for the one that the client connected to",
                    port.escape_debug()
                )));
            }
        },
    };
    Ok((host, port))
}

/// `TARGET/IP:PORT`, in two.
fn parse_inside(target: &str, endpoint: &str) -> Result<Destination, ParseError> {
    let target = target::parse(target)
        .map_err(|ParseError(why)| ParseError(format!("target `{}`: {why}", target.escape_debug())))?;
    // They mean something only to the command that names them, and the daemon looks again later.
    if matches!(target, Target::Caller | Target::Cookie(_)) {
        let why = format!(
            "`{target}` is for the namespace that is steered; name this one by `netns:`, `path:` or `pid:`"
        );
        return Err(ParseError(why));
    }
    match parse_endpoint(endpoint)? {
        (Host::Address(address), port) => Ok(Destination::Inside { target, address, port }),
        (Host::Name(name), _) => Err(ParseError(format!(
            "`{name}` is a name; inside another namespace a destination is an address"
        ))),
    }
}

fn parse_host(host: &str) -> Result<Host, ParseError> {
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let address: Ipv6Addr = inner
            .parse()
            .map_err(|_| ParseError(format!("`{}` is not an IPv6 address", inner.escape_debug())))?;
        return usable(address.into());
    }
    if KEYWORDS.iter().any(|kind| host.strip_prefix(kind).is_some_and(|rest| rest.starts_with(':'))) {
        return Err(ParseError("a destination in another namespace has an address there".into()));
    }
    if let Some((begin, _)) = host.split_once(':') {
        let is_address = host.split('%').next().is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
        return Err(ParseError(if is_address || begin.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            "an IPv6 address needs brackets".into()
        } else {
            format!("`{}` is neither an address nor a host name", host.escape_debug())
        }));
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        return usable(address);
    }
    if host.is_empty() {
        return Err(ParseError("the host is empty".into()));
    }
    if KEYWORDS.contains(&host) {
        return Err(ParseError(format!("`{host}` begins a target; a host of that name is `{host}.`")));
    }
    let labels_fit = host.strip_suffix('.').unwrap_or(host).split('.').all(|label| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    });
    let numbers = host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if host.len() > 253 || !labels_fit || numbers {
        return Err(ParseError(format!("`{}` is neither an address nor a host name", host.escape_debug())));
    }
    Ok(Host::Name(host.into()))
}

/// An address that a connection can go to.
fn usable(address: IpAddr) -> Result<Host, ParseError> {
    let why = match address {
        _ if address.is_unspecified() => "is no destination",
        _ if address.is_multicast() => "is a multicast address",
        IpAddr::V4(v4) if v4.is_broadcast() => "is the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "is IPv4-mapped; write the IPv4 address",
        IpAddr::V6(v6) if v6.is_unicast_link_local() => "is link-local, which needs an interface",
        _ => return Ok(Host::Address(address)),
    };
    Err(ParseError(format!("`{address}` {why}")))
}

impl fmt::Display for DestinationPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(port) => port.fmt(f),
            Self::Client => f.write_str("*"),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Original => f.write_str("original"),
            Self::Reject => f.write_str("reject"),
            Self::Drop => f.write_str("drop"),
            Self::Pass => f.write_str("pass"),
            Self::Handoff => f.write_str("handoff"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Inside { target, address, port } => {
                write!(f, "{target}/{}:{port}", Host::Address(*address))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms_round_trip() {
        for text in [
            "original",
            "reject",
            "pass",
            "handoff",
            "unix:/run/a.sock",
            "unix:@a.sock",
            "127.0.0.1:80",
            "[::1]:80",
            "10.0.0.1:*",
            "[fd00::1]:*",
            "localhost:80",
            "docker.:514",
            "a_b.example-1.org:65535",
            "netns:b/127.0.0.1:80",
            "path:/run/netns/b/[::1]:80",
            "pid:1/10.0.0.1:*",
        ] {
            assert_eq!(text.parse::<Destination>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_socket_may_be_a_url() {
        assert_eq!("unix:///run/a.sock".parse::<Destination>().unwrap().to_string(), "unix:/run/a.sock");
    }

    #[test]
    fn errors_show_the_corrected_form() {
        for (text, part) in [
            ("", "a destination is"),
            ("127.0.0.1", "`127.0.0.1:80`"),
            ("127.0.0.1:0", "`0` is not a port"),
            ("127.0.0.1:65536", "`65536` is not a port"),
            ("127.0.0.1:+80", "is not a port"),
            ("10.0.0.1:80@3", "`80@3` is not a port"),
            ("::1:80", "`[::1]:80`"),
            ("fd00::1%eth0:80", "needs brackets"),
            ("docker:514", "`docker.:514`"),
            ("netns:a:80", "`netns:a/127.0.0.1:80`"),
            ("netns:/10.0.0.1:80", "the name is empty"),
            ("netns:a/db:80", "`netns:a/127.0.0.1:80`"),
            ("netns:a/10.0.0.1:0", "`0` is not a port"),
            ("netns:a/10.0.0.1", "`netns:a/10.0.0.1:80`"),
            ("netns:a/0.0.0.0:80", "no destination"),
            ("web/10.0.0.1:80", "`netns:web/10.0.0.1:80`"),
            ("self/10.0.0.1:80", "`self` is for"),
            ("cookie:1/10.0.0.1:80", "`cookie:1` is for"),
            ("unix:run/a", "not absolute"),
            ("unix:@", "a name after its `@`"),
            ("unix://@a", "`unix:@a`"),
            ("0.0.0.0:80", "no destination"),
            ("224.0.0.1:80", "multicast"),
            ("255.255.255.255:80", "broadcast"),
            ("300.1.1.1:80", "neither"),
            ("a b:80", "neither"),
            (":80", "the host is empty"),
        ] {
            let error = text.parse::<Destination>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        let long = format!("unix:/{}", "a".repeat(107));
        assert!(long.parse::<Destination>().is_err());
    }
}
