//! The socket options of both legs: accepted sockets inherit them, onward ones are given them.

use std::{io, os::fd::AsFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};

use crate::sys::inject::point;

/// Silence after which keep-alive asks the peer.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Between two questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer after which the peer is dead: after two minutes in all.
const KEEPALIVE_RETRIES: u32 = 6;

/// Turns keep-alive on and Nagle's algorithm off: what is relayed was coalesced by its sender already.
///
/// # Errors
///
/// As setsockopt(2).
pub fn set_tcp_options(socket: impl AsFd) -> io::Result<()> {
    let socket = socket.as_fd();
    let socket = SockRef::from(&socket);
    point("setsockopt TCP_NODELAY")?;
    socket.set_tcp_nodelay(true)?;
    point("setsockopt SO_KEEPALIVE")?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_RETRIES),
    )
}

/// Has a byte that was sent as urgent (`MSG_OOB`) read in its place, as one of the others: the kernel keeps it back from whoever
/// does not ask for it, and what is relayed would lack it.
///
/// # Errors
///
/// As setsockopt(2).
pub fn read_urgent_in_place(socket: impl AsFd) -> io::Result<()> {
    point("setsockopt SO_OOBINLINE")?;
    SockRef::from(&socket.as_fd()).set_out_of_band_inline(true)
}
