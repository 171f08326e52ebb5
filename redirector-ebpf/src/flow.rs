//! What the program knows of a packet.

/// `IPPROTO_TCP`.
pub const PROTOCOL_TCP: u32 = 6;

/// The value of [`Flow::family`] for IPv4.
pub const FAMILY_IPV4: u32 = 1;
/// The value of [`Flow::family`] for IPv6.
pub const FAMILY_IPV6: u32 = 2;

/// Both ends of the connection that a packet would open.
///
/// An IPv4 address is in word 0, the others are 0. Words are in network byte order, as in the packet; ports
/// are in host byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Flow {
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u32,
    /// IP protocol number.
    pub protocol: u32,
    /// The client.
    pub remote_address: [u32; 4],
    /// The original destination.
    pub local_address: [u32; 4],
    /// The client's port.
    pub remote_port: u32,
    /// The original destination's port.
    pub local_port: u32,
}

const _: () = assert!(size_of::<Flow>() == 48 && core::mem::offset_of!(Flow, local_port) == 44);

impl Flow {
    /// Whether both ends have the same address: the only packets for which the bypass map is asked.
    #[inline(always)]
    #[must_use]
    pub fn is_to_itself(&self) -> bool {
        let mut different = 0;
        let mut word = 0;
        while word < 4 {
            different |= self.remote_address[word] ^ self.local_address[word];
            word += 1;
        }
        different == 0
    }
}
