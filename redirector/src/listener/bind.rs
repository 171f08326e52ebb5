//! Making a listener, in the namespace of this thread.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{mute, read_urgent_in_place, set_tcp_options};
use crate::{
    config::Listeners,
    netns::Family,
    sys::{SyscallError, inject::point, named, socket},
};

/// Connections that wait to be accepted; the namespace's `net.core.somaxconn` may be less (4096 by default).
pub(super) const BACKLOG: i32 = 4096;

/// Above the usual `ip_local_port_range` (32768 to 60999), so that neither clients nor servers of the
/// namespace meet our port: a server that binds the same port on the wildcard address would get EADDRINUSE.
const FIRST_PORT: u16 = 61_000;

/// Ports of that range that are tried before all others. With half of the range taken all are taken once in 2^64.
const PORTS_TRIED: usize = 64;

/// Which packets a listener can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// IPv4 ones.
    Ipv4,
    /// IPv6 ones.
    Ipv6,
    /// Both, on an IPv6 socket: IPv4 addresses are IPv4-mapped ones. It is bound to `::ffff:127.0.0.1`, so nobody
    /// but the namespace itself reaches it without steering. bpf_sk_assign() asks for the family only, and whether
    /// the socket is IPv6 only (`bpf_sk_lookup_assign`, net/core/filter.c).
    Both,
    /// IPv4 ones, on an IPv6 socket, as [`Self::Both`].
    MappedIpv4,
}

impl Reach {
    /// Packets of this family.
    #[must_use]
    pub fn only(family: Family) -> Self {
        match family {
            Family::Ipv4 => Self::Ipv4,
            Family::Ipv6 => Self::Ipv6,
        }
    }

    /// Each of them.
    #[must_use]
    pub fn families(self) -> &'static [Family] {
        match self {
            Self::Ipv4 | Self::MappedIpv4 => &[Family::Ipv4],
            Self::Ipv6 => &[Family::Ipv6],
            Self::Both => &[Family::Ipv4, Family::Ipv6],
        }
    }

    /// The family of the socket.
    fn domain(self) -> Domain {
        match self {
            Self::Ipv4 => Domain::IPV4,
            Self::Ipv6 | Self::Both | Self::MappedIpv4 => Domain::IPV6,
        }
    }

    fn loopback(self, port: u16) -> SocketAddr {
        match self {
            Self::Ipv4 => (Ipv4Addr::LOCALHOST, port).into(),
            Self::Ipv6 => (Ipv6Addr::LOCALHOST, port).into(),
            Self::Both | Self::MappedIpv4 => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into(),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Both => "dual-stack",
            Self::MappedIpv4 => "mapped-ipv4",
        })
    }
}

/// Sockets, each for packets of a family.
pub type Bound = Vec<(Family, Socket)>;

/// Sockets, each with the packets that it can take.
pub type Reaching = Vec<(Reach, Socket)>;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel has this family not at all (`ipv6.disable=1`): none of its packets can arrive either.
    #[error("the kernel has no {0}")]
    NoFamily(Reach),
    /// Others hold every port.
    #[error("no free port on the {0} loopback address: sockets inside the namespace hold them all")]
    NoPort(Reach),
    /// Anything else.
    #[error("make the {0} listener")]
    Syscall(Reach, #[source] SyscallError),
}

/// Makes a listening socket in the namespace of this thread. It needs CAP_NET_ADMIN over that namespace
/// (`IP_TRANSPARENT`), but neither the loopback device up nor its address: `IP_FREEBIND`.
///
/// Time-outs and `TCP_NODELAY` are set here, once: accepted sockets inherit them.
///
/// # Errors
///
/// [`BindError`].
pub fn bind(reach: Reach) -> Result<Socket, BindError> {
    let listener = unbound(reach)?;
    for port in ports() {
        if bind_to(&listener, reach, reach.loopback(port))? {
            return listening(listener, reach);
        }
    }
    Err(BindError::NoPort(reach))
}

/// One listener for each family that the kernel has, IPv4 first, as [`bind`] makes them, on one port.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_pair() -> Result<Bound, BindError> {
    let mut order = [Family::Ipv4, Family::Ipv6];
    for port in ports() {
        match bound_to(port, order)? {
            Ok(mut pair) => {
                pair.sort_by_key(|(family, _)| family.bit());
                let listen = |(family, socket)| Ok((family, listening(socket, Reach::only(family))?));
                return pair.into_iter().map(listen).collect();
            }
            // The next port is more likely to be taken there as well.
            Err(taken) => order.sort_by_key(|family| *family != taken),
        }
    }
    Err(BindError::NoPort(Reach::Ipv4))
}

/// The listeners that a program gets, as [`bind`] makes them.
///
/// # Errors
///
/// [`BindError`]. With [`Listeners::Both`] a family that the kernel lacks is left out.
pub fn bind_for(listeners: Listeners) -> Result<Reaching, BindError> {
    let reach = match listeners {
        Listeners::Both => {
            let pair = bind_pair()?.into_iter();
            return Ok(pair.map(|(family, socket)| (Reach::only(family), socket)).collect());
        }
        Listeners::V4 => Reach::Ipv4,
        Listeners::V6 => Reach::Ipv6,
        Listeners::Dual => Reach::Both,
    };
    Ok(vec![(reach, bind(reach)?)])
}

/// One socket for each family, bound to a port; the family where that is taken, if one is.
fn bound_to(port: u16, order: [Family; 2]) -> Result<Result<Bound, Family>, BindError> {
    let mut pair = Vec::new();
    for family in order {
        let reach = Reach::only(family);
        let Some(socket) = if_there_is_the_family(unbound(reach))? else { continue };
        if !bind_to(&socket, reach, reach.loopback(port))? {
            return Ok(Err(family));
        }
        pair.push((family, socket));
    }
    Ok(Ok(pair))
}

/// As [`bind_pair`], for listeners that stay with the daemon: it has them also where others hold every port, and what is accepted from
/// them is relayed whole.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_own_pair() -> Result<Bound, BindError> {
    let pair = match bind_pair() {
        Err(BindError::NoPort(_)) => {
            let made = [Family::Ipv4, Family::Ipv6].into_iter().map(|family| {
                let socket = if_there_is_the_family(bind_beside_others(Reach::only(family)))?;
                Ok(socket.map(|socket| (family, socket)))
            });
            made.filter_map(Result::transpose).collect()
        }
        result => result,
    }?;
    for (family, listener) in &pair {
        named("setsockopt SO_OOBINLINE", read_urgent_in_place(listener))
            .map_err(|error| BindError::Syscall(Reach::only(*family), error))?;
    }
    Ok(pair)
}

/// None of the packets of a family can come that the kernel has not.
fn if_there_is_the_family(made: Result<Socket, BindError>) -> Result<Option<Socket>, BindError> {
    match made {
        Err(BindError::NoFamily(_)) => Ok(None),
        result => result.map(Some),
    }
}

/// A listener on a port that others hold: in repair mode a socket is bound beside any other (`SK_FORCE_REUSE`,
/// `inet_csk_get_port`, net/ipv4/inet_connection_sock.c). Its address is one that nobody uses, so that it takes no
/// connection from those others. What is accepted from it is in repair mode as well, until [`super::accept_until`] has
/// ended that: a program that knows nothing of it cannot have such a listener.
fn bind_beside_others(reach: Reach) -> Result<Socket, BindError> {
    let listener = unbound(reach)?;
    let repair = socket::set_option(&listener, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1);
    named("setsockopt TCP_REPAIR", repair).map_err(|error| BindError::Syscall(reach, error))?;
    for (port, random) in high_ports().zip(random_numbers()) {
        let [a, b, c, d, ..] = random.to_ne_bytes();
        let address: IpAddr = match reach {
            // A loopback address, as there are 2^24.
            Reach::Ipv4 => Ipv4Addr::new(127, a | 1, b, c).into(),
            Reach::Both | Reach::MappedIpv4 => Ipv4Addr::new(127, a | 1, b, c).to_ipv6_mapped().into(),
            // Of those that are nobody's: 100::/64, RFC 6666.
            Reach::Ipv6 => {
                Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))
                    .into()
            }
        };
        if bind_to(&listener, reach, (address, port).into())? {
            return listening(listener, reach);
        }
    }
    Err(BindError::NoPort(reach))
}

/// Ports to try: some from [`FIRST_PORT`] up, then every one, from the highest down. Who holds the highest must not keep
/// us from having one.
fn ports() -> impl Iterator<Item = u16> {
    high_ports().chain((1..=u16::MAX).rev())
}

/// Ports from [`FIRST_PORT`] up, in no order.
fn high_ports() -> impl Iterator<Item = u16> {
    random_numbers().take(PORTS_TRIED).map(|random| {
        let ports = u64::from(u16::MAX - FIRST_PORT) + 1;
        FIRST_PORT + u16::try_from(random % ports).expect("less than 65536")
    })
}

/// Ports of all, in no order.
fn any_ports() -> impl Iterator<Item = u16> {
    let port = |random| u16::try_from(random % u64::from(u16::MAX)).expect("less than 65535") + 1;
    random_numbers().map(port)
}

fn random_numbers() -> impl Iterator<Item = u64> {
    let random = RandomState::new();
    (0_u64..).map(move |attempt| random.hash_one(attempt))
}

/// Whether the address was free.
fn bind_to(socket: &Socket, reach: Reach, address: SocketAddr) -> Result<bool, BindError> {
    match point("bind").and_then(|()| socket.bind(&address.into())) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        result => {
            named("bind", result).map_err(|error| BindError::Syscall(reach, error))?;
            Ok(true)
        }
    }
}

fn listening(socket: Socket, reach: Reach) -> Result<Socket, BindError> {
    let listen = point("listen").and_then(|()| socket.listen(BACKLOG));
    named("listen", listen).map_err(|error| BindError::Syscall(reach, error))?;
    Ok(socket)
}

/// A socket with every option of a listener.
fn unbound(reach: Reach) -> Result<Socket, BindError> {
    let listener = free_to_bind(reach, Type::STREAM, Protocol::TCP)?;
    named("setsockopt keep-alive", set_tcp_options(&listener))
        .map_err(|error| BindError::Syscall(reach, error))?;
    Ok(listener)
}

/// How thoroughly a port is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Every port is tried, which takes a tenth of a second where others hold all.
    Every,
    /// A few of all.
    Few,
}

impl Search {
    fn ports(self) -> Box<dyn Iterator<Item = u16>> {
        match self {
            Self::Every => Box::new(ports()),
            Self::Few => Box::new(high_ports().chain(any_ports().take(PORTS_TRIED))),
        }
    }
}

/// A UDP socket of a family, bound as listeners are, and silent as [`mute()`] makes them, from before it is bound. It is for the
/// namespace of this thread. `None` where the kernel has not that family.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_mute_udp(family: Family, search: Search) -> Result<Option<Socket>, BindError> {
    let reach = Reach::only(family);
    let socket = free_to_bind(reach, Type::DGRAM, Protocol::UDP);
    let Some(socket) = if_there_is_the_family(socket)? else { return Ok(None) };
    mute(&socket).map_err(|error| BindError::Syscall(reach, error))?;
    for port in search.ports() {
        if bind_to(&socket, reach, reach.loopback(port))? {
            return Ok(Some(socket));
        }
    }
    Err(BindError::NoPort(reach))
}

/// A socket that can be bound whatever addresses are there.
fn free_to_bind(reach: Reach, kind: Type, protocol: Protocol) -> Result<Socket, BindError> {
    let other = |error| BindError::Syscall(reach, error);
    let made = point("socket").and_then(|()| Socket::new(reach.domain(), kind.nonblocking(), Some(protocol)));
    let listener = match made {
        Ok(listener) => listener,
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            return Err(BindError::NoFamily(reach));
        }
        result @ Err(_) => named("socket", result).map_err(other)?,
    };
    match reach {
        Reach::Ipv4 => {
            named("setsockopt IP_TRANSPARENT", listener.set_ip_transparent_v4(true)).map_err(other)?;
            named("setsockopt IP_FREEBIND", listener.set_freebind_v4(true)).map_err(other)?;
        }
        Reach::Ipv6 | Reach::Both | Reach::MappedIpv4 => {
            let only_v6 = listener.set_only_v6(reach == Reach::Ipv6);
            named("setsockopt IPV6_V6ONLY", only_v6).map_err(other)?;
            let transparent = socket::set_option(&listener, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1);
            named("setsockopt IPV6_TRANSPARENT", transparent).map_err(other)?;
            named("setsockopt IPV6_FREEBIND", listener.set_freebind_v6(true)).map_err(other)?;
        }
    }
    Ok(listener)
}
