//! What the program knows of a packet.

/// `IPPROTO_TCP`.
pub const PROTOCOL_TCP: u32 = 6;
/// `IPPROTO_UDP`.
pub const PROTOCOL_UDP: u32 = 17;

/// The value of [`Flow::family`] for IPv4.
pub const FAMILY_IPV4: u32 = 1;
/// The value of [`Flow::family`] for IPv6.
pub const FAMILY_IPV6: u32 = 2;

/// Both ends of the connection that a packet would open, or of a datagram, and where it came in.
///
/// An IPv4 address is in word 0, the others are 0. Words are in network byte order, as in the packet; ports
/// are in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Flow {
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u32,
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub protocol: u32,
    /// The client.
    pub remote_address: [u32; 4],
    /// The original destination.
    pub local_address: [u32; 4],
    /// The client's port.
    pub remote_port: u32,
    /// The original destination's port.
    pub local_port: u32,
    /// Index of the interface by which the packet came; 0 where the kernel does not tell (before Linux 5.17). What comes from
    /// the namespace itself counts as what comes by the interface that has its destination's address (`inet_iif`,
    /// include/net/ip.h; `ip6_rcv_core`, net/ipv6/ip6_input.c): measured.
    pub ingress_ifindex: u32,
}

/// What is looked at of a packet only where rules ask for it: as the fields of [`Flow`].
pub trait Packet {
    /// Word 0 of the client: all of an IPv4 address.
    fn remote_first(&self) -> u32;

    /// The client.
    fn remote_address(&self) -> [u32; 4];

    /// Word 0 of the original destination.
    fn local_first(&self) -> u32;

    /// The original destination.
    fn local_address(&self) -> [u32; 4];

    /// By which interface it came.
    fn ingress_ifindex(&self) -> u32;
}

/// Protocol and family of a packet in one number, below 4: which table of an image is for it, and which of a consumer's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind(u32);

impl Kind {
    /// Of a protocol ([`PROTOCOL_TCP`] or [`PROTOCOL_UDP`]) and a family ([`FAMILY_IPV4`] or [`FAMILY_IPV6`]). Calculated,
    /// because the verifier walks all that follows once more for each thing that a branch tells him.
    #[inline(always)]
    #[must_use]
    pub const fn of(protocol: u32, family: u32) -> Self {
        const { assert!(PROTOCOL_TCP & 1 == 0 && PROTOCOL_UDP & 1 == 1) };
        const { assert!(FAMILY_IPV4 >> 1 == 0 && FAMILY_IPV6 >> 1 == 1) };
        Self((protocol & 1) << 1 | family >> 1 & 1)
    }

    /// The number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// Whether it is TCP.
    #[inline(always)]
    #[must_use]
    pub const fn is_tcp(self) -> bool {
        self.0 & 2 == 0
    }

    /// Whether addresses are IPv6 ones.
    #[inline(always)]
    #[must_use]
    pub const fn is_ipv6(self) -> bool {
        self.0 & 1 != 0
    }
}

const _: () = assert!(size_of::<Flow>() == 52 && core::mem::offset_of!(Flow, ingress_ifindex) == 48);

impl Flow {
    /// Its protocol and family.
    #[inline(always)]
    #[must_use]
    pub const fn kind(&self) -> Kind {
        Kind::of(self.protocol, self.family)
    }
}

impl Packet for Flow {
    #[inline(always)]
    fn remote_first(&self) -> u32 {
        self.remote_address[0]
    }

    #[inline(always)]
    fn remote_address(&self) -> [u32; 4] {
        self.remote_address
    }

    #[inline(always)]
    fn local_first(&self) -> u32 {
        self.local_address[0]
    }

    #[inline(always)]
    fn local_address(&self) -> [u32; 4] {
        self.local_address
    }

    #[inline(always)]
    fn ingress_ifindex(&self) -> u32 {
        self.ingress_ifindex
    }
}
