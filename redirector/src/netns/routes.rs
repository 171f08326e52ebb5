//! Which addresses are delivered locally: the routes of type `local`, by netlink.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

use crate::sys::inject::point;

/// Local routes of each family that are looked at: whoever is steered may have any number of them.
const LOOKED_AT: usize = 16_384;

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
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(RouteNetlinkMessage::GetRoute(route)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    point("sendto NETLINK_ROUTE")?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
}

/// Reads one dump to its end, or as far as it is looked at.
fn answers(socket: &Socket, family: AddressFamily, found: &mut Vec<IpNet>) -> io::Result<()> {
    let most = found.len() + LOOKED_AT;
    loop {
        if found.len() > most {
            found.truncate(most);
            found.extend(IpNet::new(unspecified(family), 0));
            return Ok(());
        }
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message =
                NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => {
                    let error = error.to_io();
                    return match error.raw_os_error() {
                        // This kernel has no such family.
                        Some(nix::libc::EOPNOTSUPP | nix::libc::EAFNOSUPPORT) => Ok(()),
                        _ => Err(error),
                    };
                }
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    found.extend(local_destination(&route));
                }
                _ => {}
            }
            // Messages are aligned to 4 bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
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
