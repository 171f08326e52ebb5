//! A connection, as the program sees its first packet.

use std::net::SocketAddr;

use redirector_ebpf::{Flow, PROTOCOL_TCP};

use super::bypass_key;
use crate::config::FlowSpec;

/// The flow of a TCP connection, by an interface that nobody names. Both ends are of one family.
#[must_use]
pub fn flow(client: SocketAddr, destination: SocketAddr) -> Flow {
    let (remote, local) = (bypass_key(client), bypass_key(destination));
    Flow {
        family: local.family,
        protocol: PROTOCOL_TCP,
        remote_address: remote.address,
        local_address: local.address,
        remote_port: remote.port,
        local_port: local.port,
        ingress_ifindex: 0,
    }
}

/// The same of a packet that is asked about, by the interface with this index.
#[must_use]
pub fn flow_of(asked: &FlowSpec, ingress_ifindex: u32) -> Flow {
    Flow { protocol: asked.protocol.number(), ingress_ifindex, ..flow(asked.source, asked.destination) }
}
