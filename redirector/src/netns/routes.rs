//! Which addresses are delivered locally: the routes of type `local`, by netlink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::ControlFlow,
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::netlink;
use crate::sys::inject::point;

/// Local routes of each family that are looked at: whoever is steered may have any number of them.
const LOOKED_AT: usize = 16_384;

/// Routes of each family that are seen, local or not. The kernel tells those of the local table first.
const SEEN: usize = 250_000;

/// The destinations of all local routes of this thread's namespace, IPv4 and IPv6, of all tables. Where there are very
/// many, anything may be local.
///
/// # Errors
///
/// When netlink fails.
pub(super) fn local() -> io::Result<Vec<IpNet>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        // One each: what is not read to its end is in the way of the next.
        let socket = Socket::new(NETLINK_ROUTE)?;
        let mut route = RouteMessage::default();
        route.header.address_family = family;
        request(&socket, route, NLM_F_REQUEST | NLM_F_DUMP)?;
        answers(&socket, family, &mut found)?;
    }
    Ok(found)
}

/// Sends `RTM_GETROUTE`.
pub(super) fn request(socket: &Socket, route: RouteMessage, flags: u16) -> io::Result<()> {
    point("sendto NETLINK_ROUTE")?;
    netlink::send(socket, RouteNetlinkMessage::GetRoute(route), flags)
}

/// Reads one dump to its end, or as far as it is looked at.
fn answers(socket: &Socket, family: AddressFamily, found: &mut Vec<IpNet>) -> io::Result<()> {
    let most = found.len() + LOOKED_AT;
    let mut seen = 0;
    let read = netlink::answers(socket, |message| {
        if let RouteNetlinkMessage::NewRoute(route) = message {
            found.extend(local_destination(&route));
            seen += 1;
        }
        if found.len() > most || seen > SEEN { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    match read {
        // This kernel has no such family.
        Err(error)
            if matches!(error.raw_os_error(), Some(nix::libc::EOPNOTSUPP | nix::libc::EAFNOSUPPORT)) => {}
        read => read?,
    }
    if found.len() > most || seen > SEEN {
        found.truncate(most);
        found.extend(IpNet::new(unspecified(family), 0));
    }
    Ok(())
}

fn local_destination(route: &RouteMessage) -> Option<IpNet> {
    if route.header.kind != RouteType::Local {
        return None;
    }
    let length = route.header.destination_prefix_length;
    let mut destination = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => {
                destination = Some((*address).into());
            }
            _ => {}
        }
    }
    // A default route has no destination.
    IpNet::new(destination.unwrap_or(unspecified(route.header.address_family)), length).ok()
}

fn unspecified(family: AddressFamily) -> IpAddr {
    match family {
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    }
}
