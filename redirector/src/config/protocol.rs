//! Transport protocols.

use std::fmt;

use redirector_ebpf::{PROTOCOL_TCP, PROTOCOL_UDP};

/// What a match says of the transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Both.
    Any,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Any];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Any => "any",
        }
    }

    /// Whether an IP protocol ([`PROTOCOL_TCP`] or [`PROTOCOL_UDP`]) is one of it.
    #[must_use]
    pub fn includes(self, protocol: u32) -> bool {
        match self {
            Self::Tcp => protocol == PROTOCOL_TCP,
            Self::Udp => protocol == PROTOCOL_UDP,
            Self::Any => true,
        }
    }

    /// The IP protocols of it.
    pub(super) fn each(self) -> impl Iterator<Item = u32> {
        [PROTOCOL_TCP, PROTOCOL_UDP].into_iter().filter(move |protocol| self.includes(*protocol))
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
