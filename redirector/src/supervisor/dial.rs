//! Making one connection: the socket, its local end, and what keeps it from coming back to us.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UnixStream};

use super::{
    outgoing::{Outgoing, OutgoingGuard},
    source_ports::SourcePorts,
};
use crate::{
    kernel::{Bypass, BypassError, BypassGuard},
    listener,
    observe::NotDelivered,
};

/// What a connection needs that goes from an address of a steered namespace to that same address.
#[derive(Debug)]
pub(super) struct Itself {
    pub(super) bypass: Arc<Bypass>,
    pub(super) ports: SourcePorts,
}

/// Dropped after the socket is closed.
#[derive(Debug, Default)]
#[expect(dead_code, reason = "held for what dropping them does")]
pub(super) struct Guards {
    pub(super) bypass: Option<BypassGuard>,
    pub(super) outgoing: Option<OutgoingGuard>,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The errno says why.
    Errno(io::Error),
    /// The errno does not.
    Because(NotDelivered, io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Errno(error)
    }
}

impl Failure {
    pub(super) fn classified(self) -> (NotDelivered, io::Error) {
        match self {
            Self::Errno(error) => (classify(&error), error),
            Self::Because(reason, error) => (reason, error),
        }
    }
}

fn classify(error: &io::Error) -> NotDelivered {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => NotDelivered::ConnectRefused,
        Some(libc::ETIMEDOUT) => NotDelivered::ConnectTimeout,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => NotDelivered::Unreachable,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => NotDelivered::OutOfSockets,
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

/// Connects, and enters the local end among the daemon's own before the other side can have answered.
pub(super) async fn connect(
    socket: Socket,
    to: SocketAddr,
    outgoing: Option<&Arc<Outgoing>>,
) -> io::Result<(TcpStream, Option<OutgoingGuard>)> {
    listener::set_tcp_options(&socket)?;
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    let local = socket.local_addr()?.as_socket();
    let guard = outgoing.and_then(|outgoing| Some(outgoing.enter(local?)));
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => Ok((stream, guard)),
    }
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
/// source port is tried, on another socket, when one is in use.
pub(super) async fn connect_from_itself<S: Future<Output = io::Result<Socket>>>(
    new_socket: impl Fn() -> S,
    to: SocketAddr,
    itself: &Itself,
) -> Result<(TcpStream, BypassGuard), Failure> {
    let mut last = io::Error::from_raw_os_error(libc::EADDRINUSE);
    for port in itself.ports.candidates(to.port()) {
        let socket = new_socket().await?;
        // Over the TIME_WAIT of a connection before.
        socket.set_reuse_address(true)?;
        let mut from = to;
        from.set_port(port);
        match socket.bind(&from.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                last = error;
                continue;
            }
            result => result?,
        }
        let local = socket.local_addr()?.as_socket();
        let local = local.ok_or_else(|| io::Error::other("not an internet address"))?;
        let guard = match itself.bypass.enter(local) {
            Ok(guard) => guard,
            Err(BypassError::Busy) => continue,
            Err(error @ BypassError::Full) => {
                return Err(Failure::Because(NotDelivered::BypassFull, io::Error::other(error)));
            }
            Err(BypassError::Syscall(error)) => return Err(error.into()),
        };
        // The guard outlives the socket also when this fails or is given up.
        match connect(socket, to, None).await {
            Ok((stream, _)) => return Ok((stream, guard)),
            // A connection of this very port is in TIME_WAIT, and too young to be followed.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::Because(NotDelivered::NoSourcePort, last))
}

/// Connects to a Unix socket; waits while its backlog is full, as a blocking connect(2) does.
pub(super) async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    const FIRST_PAUSE: Duration = Duration::from_millis(1);
    const LONGEST_PAUSE: Duration = Duration::from_millis(100);
    let mut pause = FIRST_PAUSE;
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            result => return result,
        }
    }
}
