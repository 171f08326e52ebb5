//! Making one connection: the socket, its local end, and what keeps it from coming back to us.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{io::Interest, net::TcpStream};

use super::{
    itself::Itself,
    loops::{Outgoing, OutgoingGuard, begin},
    source_ports::Candidate,
};
use crate::{
    kernel::{BypassError, BypassGuard},
    listener,
    netns::NetnsCookie,
    observe::NotDelivered,
    relay::{Hold, Tcp},
    sys::socket,
};

/// Where a connection is made, and with which others it is noted.
#[derive(Clone, Copy, Debug)]
pub(super) struct DialFrom<'a> {
    pub(super) outgoing: &'a Arc<Outgoing>,
    pub(super) netns: NetnsCookie,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum DialFailure {
    /// The errno says why.
    Errno(io::Error),
    /// The errno does not.
    Because(NotDelivered, io::Error),
}

impl From<io::Error> for DialFailure {
    fn from(error: io::Error) -> Self {
        Self::Errno(error)
    }
}

impl DialFailure {
    pub(super) fn classified(self) -> (NotDelivered, io::Error) {
        match self {
            Self::Errno(error) => (classify(&error), error),
            Self::Because(reason, error) => (reason, error),
        }
    }

    /// Whether the destination may be elsewhere by now: whoever is where it was refuses, resets or is not there. What this host
    /// lacks says nothing about it.
    pub(super) fn may_have_moved(&self) -> bool {
        let Self::Errno(error) = self else { return false };
        error.raw_os_error() == Some(libc::ECONNRESET)
            || matches!(
                classify(error),
                NotDelivered::ConnectRefused | NotDelivered::ConnectTimeout | NotDelivered::Unreachable
            )
    }
}

/// Whether this host has no more of what every connection needs: it says nothing about a destination.
pub(super) fn is_out_of_sockets(error: &io::Error) -> bool {
    classify(error) == NotDelivered::OutOfSockets
}

fn classify(error: &io::Error) -> NotDelivered {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => NotDelivered::ConnectRefused,
        Some(libc::ETIMEDOUT) => NotDelivered::ConnectTimeout,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => NotDelivered::Unreachable,
        // The last two are of a thread, and of epoll.
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EAGAIN | libc::ENOSPC) => {
            NotDelivered::OutOfSockets
        }
        // Of connect(2): the local ports of this destination are used up.
        Some(libc::EADDRNOTAVAIL) => NotDelivered::NoSourcePort,
        _ => NotDelivered::ConnectError,
    }
}

/// A TCP socket of the daemon's namespace.
pub(super) fn socket_for(to: SocketAddr) -> io::Result<Socket> {
    let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
}

/// Gives a socket the options of the other leg.
fn prepare(socket: &Socket) -> io::Result<()> {
    listener::set_tcp_options(socket)?;
    listener::read_urgent_in_place(socket)
}

/// Ready when there is a connection, whatever has become of it since: a peer that has accepted it, said something and reset it
/// is heard by the relay, and its reset too. An error that was asked for here would be gone, and what is read then
/// would end as if by a FIN.
async fn connected(stream: &TcpStream) -> io::Result<()> {
    let ready = stream.ready(Interest::WRITABLE | Interest::ERROR).await?;
    if !ready.is_error() {
        return Ok(());
    }
    // The peer's answer to the SYN counts.
    if socket::tcp_info(stream)?.acknowledged > 0 {
        return Ok(());
    }
    Err(stream.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()))
}

/// Connects, and notes the connection before the other side can have taken it for anybody else's.
pub(super) async fn connect(
    socket: Socket,
    to: SocketAddr,
    DialFrom { outgoing, netns }: DialFrom<'_>,
) -> io::Result<(TcpStream, Option<OutgoingGuard>)> {
    prepare(&socket)?;
    // What goes to loopback does not leave its namespace.
    let guard = if to.ip().is_loopback() {
        begin(&socket, to)?;
        None
    } else {
        Some(outgoing.connect(&socket, netns, to)?)
    };
    // Behind the guard, which outlives it when this fails or is given up.
    let stream = TcpStream::from_std(socket.into())?;
    connected(&stream).await?;
    if is_with_itself(&stream) {
        // Neither FIN nor TIME_WAIT are for anybody.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
    }
    Ok((stream, guard))
}

/// Whether a socket has met itself: nobody listens at a port of ours, and the kernel has chosen that very port for our own
/// end (simultaneous open, RFC 9293 section 3.5). What is said there comes back.
fn is_with_itself(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(own), Ok(peer)) if own == peer)
}

/// Whether a connection to this address would come from the same address, or can be made to.
pub(super) fn is_to_itself(to: SocketAddr) -> bool {
    let source = || {
        let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(to)?;
        socket.local_addr()
    };
    to.ip().is_loopback() || source().is_ok_and(|source| source.ip() == to.ip())
}

/// Connects a socket to an address of its own namespace from that same address, past the program. Another
/// source port is tried when one is in use.
///
/// The program knows such a connection by its two ends, so nobody else may have them while it does: see [`bind_alone`].
pub(super) async fn connect_from_itself<S: Future<Output = io::Result<Socket>>>(
    new_socket: impl Fn() -> S,
    to: SocketAddr,
    itself: &Itself,
) -> Result<Tcp, DialFailure> {
    let mut last = io::Error::from_raw_os_error(libc::EADDRINUSE);
    let mut unbound = None;
    for candidate in itself.ports.candidates(to.port()) {
        let port = match candidate {
            Candidate::Port(port) => port,
            Candidate::OfKernel => match port_of_kernel(&new_socket, to).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    itself.ports.kernel_has_none();
                    last = error;
                    break;
                }
                port => port?,
            },
        };
        let socket = match unbound.take() {
            Some(socket) => socket,
            None => new_socket().await?,
        };
        let mut from = to;
        from.set_port(port);
        match bind_alone(&socket, from) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                last = error;
                unbound = Some(socket);
                continue;
            }
            result => result?,
        }
        let guard = match itself.bypass.enter(from, to.port()) {
            Ok(guard) => Alone(guard),
            Err(BypassError::Busy) => continue,
            Err(error @ BypassError::Full) => {
                return Err(DialFailure::Because(NotDelivered::BypassFull, io::Error::other(error)));
            }
            Err(BypassError::Syscall(error)) => return Err(error.into()),
        };
        match connect_alone(socket, guard, to).await {
            Ok(stream) => return Ok(stream),
            // A connection of this very port is in TIME_WAIT, and too young to be followed.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(DialFailure::Because(NotDelivered::NoSourcePort, last))
}

/// Binds a socket where nobody else is, without SO_REUSEADDR: that refuses a port where anybody else is bound, and
/// anybody else afterwards. (With it, a process that was bound there first could connect in the place of this socket.)
///
/// What we have left in TIME_WAIT ([`Alone::before_fin`]) is no hindrance, or a client that ends its connections first would
/// have each port rest for a minute. SO_REUSEPORT tells the two apart: it passes over TIME_WAIT, and shares a port with a
/// socket of the same user only (`inet_bind_conflict`,
/// <https://github.com/torvalds/linux/blob/v6.18/net/ipv4/inet_connection_sock.c>). So what is left is a process of the
/// daemon's own user that waits at such a port: between the entry in the map and connect(2) it could connect to the
/// same port of the same address.
fn bind_alone(socket: &Socket, from: SocketAddr) -> io::Result<()> {
    match socket.bind(&from.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
        result => return result,
    }
    socket.set_reuse_port(true)?;
    let bound = socket.bind(&from.into());
    socket.set_reuse_port(false)?;
    bound
}

/// A port that is free at an address, of those that applications use too, as the kernel chooses. Never the port of the
/// address itself, at which a socket would meet itself.
///
/// It is bound again by number: a port that the kernel has chosen is free as soon as the peer resets the connection,
/// one that was asked for only when the socket is closed (`SOCK_BINDPORT_LOCK`). `IP_BIND_ADDRESS_NO_PORT` would leave the choice
/// to connect(2), and more connections could share a port; but the SYN goes out in that call, and the program must
/// know both ends by then.
async fn port_of_kernel<S: Future<Output = io::Result<Socket>>>(
    new_socket: impl Fn() -> S,
    to: SocketAddr,
) -> io::Result<u16> {
    let mut any = to;
    any.set_port(0);
    let choose = async || {
        let socket = new_socket().await?;
        socket.bind(&any.into())?;
        let chosen = socket.local_addr()?.as_socket();
        let chosen = chosen.ok_or_else(|| io::Error::other("not an internet address"))?;
        io::Result::Ok((chosen.port(), socket))
    };
    let (port, socket) = choose().await?;
    if port != to.port() {
        return Ok(port);
    }
    // Held meanwhile, so that it is another.
    let (port, _) = choose().await?;
    drop(socket);
    Ok(port)
}

async fn connect_alone(socket: Socket, guard: Alone, to: SocketAddr) -> io::Result<Tcp> {
    let begun = prepare(&socket).and_then(|()| begin(&socket, to));
    // It is closed when the runtime does not take it, and that is before the guard could go. So it is held until then.
    let held = socket.try_clone()?;
    let stream = match TcpStream::from_std(socket.into()) {
        Ok(stream) => stream,
        Err(error) => {
            drop(guard);
            drop(held);
            return Err(error);
        }
    };
    // From here on the guard goes before the socket, whatever becomes of them.
    let stream = Tcp::holding(stream, Box::new(guard));
    drop(held);
    begun?;
    connected(&stream).await?;
    Ok(stream)
}

/// Keeps the program from steering what goes between two ends, one of which nobody else can have.
#[derive(Debug)]
struct Alone(BypassGuard);

impl Hold for Alone {
    /// What comes next can leave the connection in TIME_WAIT for a minute, and then applications must be able to
    /// listen on its port. So others can be bound to it from now on, and the program steers what goes between these
    /// ends. It still would be asked about the ACK that answers a SYN cookie, until the peer has answered something.
    fn before_fin(&self, stream: &TcpStream) {
        if !socket::has_been_answered(stream).unwrap_or(false) {
            return;
        }
        if !self.0.end() {
            return;
        }
        // The one for applications, the other for our own next connection.
        let shared = SockRef::from(stream).set_reuse_address(true);
        if let Err(error) = shared.and_then(|()| SockRef::from(stream).set_reuse_port(true)) {
            tracing::debug!(%error, "setsockopt SO_REUSEADDR, SO_REUSEPORT");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn a_port_is_shared_with_nobody_while_its_entry_cannot_be_taken_out() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"answer").unwrap();
        stream.readable().await.unwrap();
        assert!(socket::has_been_answered(&stream).unwrap());
        Alone(BypassGuard::stuck()).before_fin(&stream);
        let socket = SockRef::from(&stream);
        assert!(!socket.reuse_address().unwrap() && !socket.reuse_port().unwrap());
    }

    #[tokio::test]
    async fn a_peer_that_has_reset_already_was_there_and_what_it_has_said_is_heard() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        for words in [&b"last words"[..], b""] {
            let socket = socket_for(to).unwrap();
            begin(&socket, to).unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(words).unwrap();
            SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            drop(peer);
            let mut stream = TcpStream::from_std(socket.into()).unwrap();
            connected(&stream).await.unwrap();
            let mut heard = Vec::new();
            let end = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard).await;
            assert_eq!((&*heard, end.unwrap_err().kind()), (words, io::ErrorKind::ConnectionReset));
        }
        drop(listener);
        let socket = socket_for(to).unwrap();
        begin(&socket, to).unwrap();
        let stream = TcpStream::from_std(socket.into()).unwrap();
        assert_eq!(connected(&stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_socket_that_meets_itself_is_refused() {
        let outgoing = Arc::default();
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let socket = socket_for(any.parse().unwrap()).unwrap();
            socket.bind(&any.parse::<SocketAddr>().unwrap().into()).unwrap();
            let own = socket.local_addr().unwrap().as_socket().unwrap();
            let dialled = connect(socket, own, DialFrom { outgoing: &outgoing, netns: NetnsCookie(1) }).await;
            assert_eq!(dialled.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn only_what_a_destination_does_says_that_it_may_have_moved() {
        let of = |errno| DialFailure::Errno(io::Error::from_raw_os_error(errno));
        let of_destination =
            [libc::ECONNREFUSED, libc::ECONNRESET, libc::ETIMEDOUT, libc::ENETUNREACH, libc::EHOSTUNREACH];
        assert!(of_destination.iter().all(|errno| of(*errno).may_have_moved()));
        let out_of_sockets =
            [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN, libc::ENOSPC];
        for errno in out_of_sockets {
            let error = io::Error::from_raw_os_error(errno);
            assert!(is_out_of_sockets(&error), "{error}");
            assert!(!DialFailure::Errno(error).may_have_moved(), "{errno}");
        }
        for errno in [libc::EADDRNOTAVAIL, libc::EADDRINUSE, libc::EPERM, libc::EIO] {
            assert!(!of(errno).may_have_moved(), "{errno}");
        }
        for reason in [NotDelivered::NoSourcePort, NotDelivered::BypassFull, NotDelivered::OutOfSockets] {
            let failure = DialFailure::Because(reason, io::Error::from_raw_os_error(libc::ECONNREFUSED));
            assert!(!failure.may_have_moved(), "{reason:?}");
        }
    }
}
