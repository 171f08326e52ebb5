//! The accept loop: what goes on, what backs off, what ends it.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpStream};

use crate::sys::{sequence::end_repair, socket};

/// Why an accept loop ended.
#[derive(Debug)]
pub enum AcceptEnd {
    /// It was told to.
    Stopped,
    /// The listener is dead: accept(2) would say the same for ever.
    Fatal(io::Error),
}

/// The pause after accept(2) found no fd or no memory. The connection stays in the queue meanwhile.
const BACK_OFF: Duration = Duration::from_millis(100);

/// An accepted socket is bound to the original destination's port. An application that starts there while it is open gets
/// the port if it sets `SO_REUSEADDR`, as it would beside its own connections, only when this socket has the option too.
/// The listener must not: killed from inside (`ss -K`) it would lose its port to whoever sets it.
fn share_port(stream: &TcpStream) {
    // It cannot fail on a TCP socket; if it did, the connection would be as good.
    drop(socket2::SockRef::from(stream).set_reuse_address(true));
}

/// Whether a listener is in repair mode, as one is that is bound beside others.
fn is_in_repair(listener: &TcpListener) -> bool {
    socket::option::<i32>(listener, libc::IPPROTO_TCP, libc::TCP_REPAIR).is_ok_and(|mode| mode != 0)
}

/// Makes an accepted socket what it shall be.
fn settle(stream: &TcpStream, is_in_repair: bool) {
    // In it nothing can be read, and nothing is sent. Who could begin it can end it. If not, the first read fails, and the
    // connection is reset.
    if is_in_repair && let Err(error) = end_repair(stream) {
        tracing::debug!(%error, "setsockopt TCP_REPAIR");
    }
    share_port(stream);
}

/// Accepts until `stop` is ready or the listener is dead.
pub async fn accept_until(
    listener: &TcpListener,
    stop: impl Future<Output = ()>,
    mut take: impl FnMut(TcpStream, SocketAddr),
    mut exhausted: impl FnMut(&io::Error),
) -> AcceptEnd {
    tokio::pin!(stop);
    let is_in_repair = is_in_repair(listener);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => return AcceptEnd::Stopped,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                settle(&stream, is_in_repair);
                take(stream, peer);
            }
            Err(error) => match class(&error) {
                Class::OneConnection => {}
                Class::Exhausted => {
                    exhausted(&error);
                    tokio::select! {
                        () = &mut stop => return AcceptEnd::Stopped,
                        () = tokio::time::sleep(BACK_OFF) => {}
                    }
                }
                Class::Fatal => return AcceptEnd::Fatal(error),
            },
        }
    }
}

/// Accepts what is complete in the queue of a listener that gets no new connections. The kernel is asked itself: the runtime may
/// not have been told yet that there is something.
pub fn accept_ready(listener: &TcpListener, mut take: impl FnMut(TcpStream, SocketAddr)) {
    let is_in_repair = is_in_repair(listener);
    loop {
        let accepted = socket2::SockRef::from(listener).accept().and_then(|(socket, peer)| {
            socket.set_nonblocking(true)?;
            let peer = peer.as_socket().ok_or(io::ErrorKind::InvalidData)?;
            Ok((TcpStream::from_std(socket.into())?, peer))
        });
        match accepted {
            Ok((stream, peer)) => {
                settle(&stream, is_in_repair);
                take(stream, peer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if matches!(class(&error), Class::OneConnection) => {}
            Err(_) => return,
        }
    }
}

enum Class {
    /// The error belongs to the connection that would have been accepted.
    OneConnection,
    /// The process or the machine has no more of something.
    Exhausted,
    /// The error belongs to the listener.
    Fatal,
}

/// accept(2), section "Error handling": network errors that are pending on the new socket are passed on.
fn class(error: &io::Error) -> Class {
    match error.raw_os_error() {
        Some(
            libc::ECONNABORTED
            | libc::EINTR
            | libc::EAGAIN
            | libc::EPERM
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ETIMEDOUT,
        ) => Class::OneConnection,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Class::Exhausted,
        _ => Class::Fatal,
    }
}
