//! Sockets that take nothing.

use socket2::{SockFilter, Socket};

use crate::sys::{SyscallError, inject::point, named, socket};

/// Gives a listener, or a UDP socket, a filter that drops every packet, for good: who is steered to it hears nothing.
/// Measured: a client's SYN vanishes before TCP sees it, on IPv4 and IPv6; a datagram without an ICMP error.
///
/// # Errors
///
/// As setsockopt(2) `SO_ATTACH_FILTER`, `SO_LOCK_FILTER` (Linux 3.9).
pub fn mute(listener: &Socket) -> Result<(), SyscallError> {
    /// `BPF_RET | BPF_K`: keep so many bytes of the packet.
    const RETURN: u16 = 0x06;
    let nothing = [SockFilter::new(RETURN, 0, 0, 0)];
    let filtered = point("setsockopt SO_ATTACH_FILTER").and_then(|()| listener.attach_filter(&nothing));
    named("setsockopt SO_ATTACH_FILTER", filtered)?;
    let locked = socket::set_option(listener, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1);
    named("setsockopt SO_LOCK_FILTER", locked)
}
