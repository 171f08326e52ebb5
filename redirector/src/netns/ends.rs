//! The ends of a TCP connection, and its state.

use std::net::SocketAddr;

use netlink_packet_sock_diag::inet::StateFlags;

/// Both ends of a connection. An IPv4-mapped address is an IPv4 one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ends {
    /// In the namespace. Of a connection that is steered it is the original destination.
    pub local: SocketAddr,
    /// The peer.
    pub remote: SocketAddr,
}

/// A state of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Established,
    /// Its SYN has been answered, and the answer is not acknowledged.
    SynReceived,
}

impl State {
    /// As inet_diag chooses by. It takes `TCP_NEW_SYN_RECV`, which is what such a connection is, for `TCP_SYN_RECV`.
    pub(super) fn flag(self) -> StateFlags {
        match self {
            Self::Established => StateFlags::ESTABLISHED,
            Self::SynReceived => StateFlags::SYN_RECV,
        }
    }
}
