//! A connection, as the program sees its first packet.

use std::net::SocketAddr;

use redirector_ebpf::{Flow, PROTOCOL_TCP};

use super::bypass::words;
use crate::config::FlowSpec;

/// The flow of a TCP connection, by an interface that nobody names. Both ends are of one family.
#[must_use]
pub fn flow(client: SocketAddr, destination: SocketAddr) -> Flow {
    let ((_, remote_address), (family, local_address)) = (words(client.ip()), words(destination.ip()));
    Flow {
        family,
        protocol: PROTOCOL_TCP,
        remote_address,
        local_address,
        remote_port: client.port().into(),
        local_port: destination.port().into(),
        ingress_ifindex: 0,
    }
}

/// The same of a packet that is asked about, by the interface with this index.
#[must_use]
pub fn flow_of(asked: &FlowSpec, ingress_ifindex: u32) -> Flow {
    Flow { protocol: asked.protocol.number(), ingress_ifindex, ..flow(asked.source, asked.destination) }
}
