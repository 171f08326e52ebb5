//! The loopback device of a namespace of our own.

use std::io;

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{LinkFlags, LinkMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};

use super::{InterfaceIndex, netlink};

/// Sets the loopback device of this thread's namespace up, which gives it `127.0.0.1/8` and `::1`. For namespaces
/// that we have made: in others it is the owner's business. Needs CAP_NET_ADMIN there.
///
/// # Errors
///
/// As rtnetlink(7) `RTM_SETLINK`.
pub fn raise_loopback() -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.index = InterfaceIndex::LOOPBACK.0;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    let socket = Socket::new(NETLINK_ROUTE)?;
    netlink::send(&socket, RouteNetlinkMessage::SetLink(link), NLM_F_REQUEST | NLM_F_ACK)?;
    let answer = netlink::receive(&socket)?;
    let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        // An acknowledgement is an error without a code.
        NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
        NetlinkPayload::Error(error) => Err(error.to_io()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
