//! How a packet would arrive in a namespace: by which interface, and whether it would be delivered there. The kernel's routing
//! is asked, by netlink. Called inside the namespace, see [`super::enter()`].

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
};

use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteFlags, RouteMessage, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::libc::{EINVAL, EXDEV};

use super::{InterfaceIndex, routes};
use crate::config::{FlowSpec, Transport};

/// How a packet would arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The name of the interface by which it comes, as the steering program is told: what the namespace itself sends comes by
    /// the one that has the destination's address ([`redirector_ebpf::Flow::ingress_ifindex`]).
    pub interface: String,
    /// Of that one.
    pub index: InterfaceIndex,
    /// How that is known.
    pub by: By,
    /// What becomes of it there.
    pub delivery: Delivery,
}

/// How it is known by which interface a packet comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Whoever asks has said so.
    Named,
    /// Its source is an address of the namespace.
    Inside,
    /// It is the one by which an answer would go.
    Assumed,
}

/// What the kernel's routing says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It is delivered to a socket of the namespace.
    Local,
    /// It is not for the namespace: this kind of route.
    Elsewhere(&'static str),
    /// It is not for the namespace, or refused: this errno.
    Errno(i32),
    /// An answer would not go by the interface, and `rp_filter` refuses such packets.
    ReversePath,
    /// It does not come: the interface is down, or `lo` of what is sent inside.
    Down,
    /// It is dropped before any route is looked up: a loopback address that comes by another interface.
    Loopback,
    /// Nobody there can send it: its source is not an address of the namespace.
    ForeignSource,
    /// Its source is an address of the namespace, and it is said to come by another interface than `lo`.
    OwnSource,
}

/// Why that cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ArrivalError {
    /// No interface has that name.
    #[error("it has no interface `{name}`")]
    NoSuchInterface {
        /// That name.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// The interface was not named, and none leads back.
    #[error("by which interface a packet of `{address}` would come cannot be told: rtnetlink RTM_GETROUTE")]
    NoWayBack {
        /// The packet's source.
        address: IpAddr,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Something else went wrong.
    #[error("rtnetlink RTM_GETROUTE")]
    Netlink(#[from] io::Error),
}

const LOOPBACK: InterfaceIndex = InterfaceIndex::LOOPBACK;

/// How a packet would arrive in the namespace of this thread.
///
/// # Errors
///
/// [`ArrivalError`].
pub fn arrival(flow: &FlowSpec) -> Result<Arrival, ArrivalError> {
    let there = super::interfaces()?;
    let (source, destination) = (flow.source.ip(), flow.destination.ip());
    let back = look_up(Question::between(None, source))?;
    let is_inside = matches!(&back, Ok(route) if kind(route) == RouteType::Local);
    let link_local = if is_inside { None } else { by_link_local(flow)? };
    let (index, by) = match &flow.device {
        Some(named) => {
            let found = there.iter().find(|(name, _)| name == named.as_str());
            let (_, index) = found.ok_or_else(|| ArrivalError::NoSuchInterface {
                name: named.to_string(),
                there: there.iter().map(|(name, _)| name.clone()).collect(),
            })?;
            (*index, By::Named)
        }
        None if is_inside => (LOOPBACK, By::Inside),
        None if link_local.is_some() => (link_local.unwrap_or(LOOPBACK), By::Assumed),
        None => {
            let no_way = |source| ArrivalError::NoWayBack { address: flow.source.ip(), source };
            let index = match &back {
                Ok(route) => interface(route),
                Err(error) => return Err(no_way(again(error))),
            };
            (index.ok_or_else(|| no_way(io::ErrorKind::NotFound.into()))?, By::Assumed)
        }
    };
    let (index, delivery) = if !index.is_up()? {
        (index, Delivery::Down)
    } else if index == LOOPBACK {
        if is_inside { sent_inside(flow)? } else { (index, Delivery::ForeignSource) }
    } else if source.is_ipv6() && (source.is_loopback() || destination.is_loopback()) {
        // ip6_rcv_core, net/ipv6/ip6_input.c; of IPv4 the route says it.
        (index, Delivery::Loopback)
    } else {
        let from = Question {
            ingress: Some(index),
            ends: Some(flow),
            ..Question::between(Some(source), destination)
        };
        let delivery = match delivery(&look_up(from)?, flow) {
            Delivery::Errno(EINVAL) if is_inside => Delivery::OwnSource,
            Delivery::Errno(EXDEV) => Delivery::ReversePath,
            // Newer kernels say that of both (measured on 6.18).
            Delivery::Errno(EINVAL) if is_filtered(flow, &back, index, &there) => Delivery::ReversePath,
            delivery => delivery,
        };
        (index, delivery)
    };
    let name = there.into_iter().find(|(_, one)| *one == index).map(|(name, _)| name);
    Ok(Arrival { interface: name.unwrap_or_default(), index, by, delivery })
}

fn again(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Whether `rp_filter` of an interface is why a packet does not come by it (Documentation/networking/ip-sysctl.rst).
fn is_filtered(
    flow: &FlowSpec,
    back: &io::Result<RouteMessage>,
    index: InterfaceIndex,
    there: &[(String, InterfaceIndex)],
) -> bool {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (flow.source.ip(), flow.destination.ip()) else {
        return false;
    };
    let setting = |name: &str| -> u32 {
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or_default()
    };
    let name = there.iter().find(|(_, one)| *one == index).map(|(name, _)| name.as_str());
    let goes_back = match setting("all").max(name.map_or(0, setting)) {
        0 => return false,
        // By this interface.
        1 => back.as_ref().is_ok_and(|route| interface(route) == Some(index)),
        // By any.
        _ => back.is_ok(),
    };
    // These come by no interface, whatever the setting.
    let is_martian = source.is_multicast() || source.is_broadcast() || source.is_loopback();
    !goes_back && !is_martian && !destination.is_loopback()
}

/// The interface that has a link-local destination: there is a way back by each. `None` where neither end is link-local.
fn by_link_local(flow: &FlowSpec) -> Result<Option<InterfaceIndex>, ArrivalError> {
    let is_link_local =
        |address: IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    let (source, destination) = (flow.source.ip(), flow.destination.ip());
    if flow.device.is_some() || !(is_link_local(source) || is_link_local(destination)) {
        return Ok(None);
    }
    let has_it = Question { answer: RouteFlags::FibMatch, ..Question::between(None, destination) };
    let found = match look_up(has_it)? {
        Ok(route) if is_link_local(destination) && kind(&route) == RouteType::Local => interface(&route),
        _ => None,
    };
    let why = || io::Error::other("there is a link-local way back by each interface");
    found.map(Some).ok_or_else(|| ArrivalError::NoWayBack { address: source, source: why() })
}

/// What the namespace itself sends: by which interface it counts as coming, and whether it stays there.
fn sent_inside(flow: &FlowSpec) -> Result<(InterfaceIndex, Delivery), ArrivalError> {
    let (source, destination) = (flow.source.ip(), flow.destination.ip());
    let question = Question { ends: Some(flow), ..Question::between(Some(source), destination) };
    let delivery = delivery(&look_up(question)?, flow);
    if delivery != Delivery::Local {
        return Ok((LOOPBACK, delivery));
    }
    // The entry that matches has the interface of the address; what is made of it has `lo`.
    let entry = look_up(Question { answer: RouteFlags::FibMatch, ..question })?;
    Ok((entry.ok().as_ref().and_then(interface).unwrap_or(LOOPBACK), delivery))
}

fn delivery(answer: &io::Result<RouteMessage>, flow: &FlowSpec) -> Delivery {
    match answer {
        Ok(route) => match kind(route) {
            RouteType::Local => Delivery::Local,
            // An address that several have. TCP does not answer there (`tcp_v6_conn_request`, net/ipv6/tcp_ipv6.c).
            RouteType::Anycast if flow.protocol == Transport::Udp => Delivery::Local,
            RouteType::Anycast => Delivery::Elsewhere("anycast"),
            RouteType::Unicast => Delivery::Elsewhere("unicast"),
            RouteType::Broadcast => Delivery::Elsewhere("broadcast"),
            RouteType::Multicast => Delivery::Elsewhere("multicast"),
            RouteType::BlackHole => Delivery::Elsewhere("blackhole"),
            RouteType::Unreachable => Delivery::Elsewhere("unreachable"),
            RouteType::Prohibit => Delivery::Elsewhere("prohibit"),
            _ => Delivery::Elsewhere("other"),
        },
        Err(error) => Delivery::Errno(error.raw_os_error().unwrap_or_default()),
    }
}

fn kind(route: &RouteMessage) -> RouteType {
    route.header.kind
}

fn interface(route: &RouteMessage) -> Option<InterfaceIndex> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(InterfaceIndex(*index)),
        _ => None,
    })
}

/// What the kernel is asked.
#[derive(Clone, Copy)]
struct Question<'a> {
    source: Option<IpAddr>,
    destination: IpAddr,
    ingress: Option<InterfaceIndex>,
    /// Protocol and ports, which rules of routing may name.
    ends: Option<&'a FlowSpec>,
    answer: RouteFlags,
}

impl Question<'_> {
    /// Of a packet that is sent here.
    fn between(source: Option<IpAddr>, destination: IpAddr) -> Self {
        Self { source, destination, ingress: None, ends: None, answer: RouteFlags::empty() }
    }

    fn message(self) -> RouteMessage {
        let Self { source, destination, ingress, ends, answer } = self;
        let mut route = RouteMessage::default();
        let (family, length) =
            if destination.is_ipv4() { (AddressFamily::Inet, 32) } else { (AddressFamily::Inet6, 128) };
        route.header.address_family = family;
        route.header.flags = answer;
        route.header.destination_prefix_length = length;
        route.attributes.push(RouteAttribute::Destination(destination.into()));
        if let Some(source) = source {
            route.header.source_prefix_length = length;
            route.attributes.push(RouteAttribute::Source(source.into()));
        }
        route.attributes.extend(ingress.map(|index| RouteAttribute::Iif(index.0)));
        if let Some(FlowSpec { protocol, source, destination, .. }) = ends {
            let number = u8::try_from(protocol.number()).expect("6 or 17");
            let port = SocketAddr::port;
            route.attributes.extend([
                RouteAttribute::IpProto(number),
                RouteAttribute::Sport(port(source)),
                RouteAttribute::Dport(port(destination)),
            ]);
        }
        route
    }
}

/// The route, or what the kernel says instead.
fn look_up(question: Question<'_>) -> io::Result<io::Result<RouteMessage>> {
    let socket = Socket::new(NETLINK_ROUTE)?;
    routes::request(&socket, question.message(), NLM_F_REQUEST)?;
    let datagram = super::netlink::receive(&socket)?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&datagram).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => Ok(Ok(route)),
        NetlinkPayload::Error(error) => Ok(Err(error.to_io())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_to_loopback_stays_here() {
        let arrival = |flow: &str| arrival(&flow.parse().unwrap());
        let inside = arrival("tcp 127.0.0.1:1000 -> 127.0.0.1:80").unwrap();
        let expected =
            Arrival { interface: "lo".into(), index: LOOPBACK, by: By::Inside, delivery: Delivery::Local };
        assert_eq!(inside, expected);
        let foreign = arrival("tcp 192.0.2.1:1000 -> 127.0.0.1:80 dev lo").unwrap();
        assert_eq!((foreign.by, foreign.delivery), (By::Named, Delivery::ForeignSource));
        let unknown = arrival("tcp 192.0.2.1:1000 -> 127.0.0.1:80 dev none0").unwrap_err();
        assert!(unknown.to_string().contains("`none0`"), "{unknown}");
    }
}
