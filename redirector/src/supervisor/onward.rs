//! The second leg: from a rule's destination to a connected stream.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
    time::Instant,
};

use super::rules::RuleState;
use crate::{
    config::{Destination, DestinationPort, Host},
    kernel::{Bypass, BypassError, BypassGuard},
    listener::OriginalDst,
    netns::{Family, SocketFactory},
    observe::NotDelivered,
    relay::{self, Stream},
};

/// A connected second leg.
#[derive(Debug)]
pub(super) struct Onward {
    pub(super) stream: Stream,
    pub(super) endpoint: Endpoint,
    /// Whether it lives in the steered namespace, where it must not be closed carelessly.
    pub(super) place: Place,
    /// Dropped after the stream is closed.
    pub(super) guard: Option<BypassGuard>,
}

/// Where an onward socket lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the steered namespace.
    Inside,
    /// In the daemon's.
    Outside,
}

/// Where a connection was taken, for the log.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// The destination as the rule says it: no address was tried.
    Rule(Destination),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Rule(destination) => destination.fmt(f),
        }
    }
}

/// Why there is no second leg.
#[derive(Debug)]
pub(super) struct DialError {
    pub(super) reason: NotDelivered,
    pub(super) endpoint: Endpoint,
    pub(super) source: io::Error,
}

/// What a dial needs of its surroundings.
#[derive(Debug)]
pub(super) struct Dialer {
    /// Makes sockets inside the steered namespace.
    pub(super) factory: SocketFactory,
    /// Of the steered namespace.
    pub(super) bypass: Arc<Bypass>,
    /// Of the daemon's own namespace, while that is steered too.
    pub(super) host: Arc<ArcSwapOption<Bypass>>,
}

impl Dialer {
    /// Connects to where the rule takes a connection. `client` is its first leg.
    pub(super) async fn dial(
        &self,
        state: &RuleState,
        client: &TcpStream,
        OriginalDst(original): OriginalDst,
    ) -> Result<Onward, DialError> {
        if state.rule.to == Destination::Original {
            let dial = self.dial_inside(client, original);
            return within(state.rule.connect_timeout.0, Endpoint::Tcp(original), dial).await;
        }
        self.dial_outside(state, original.port()).await
    }

    /// Connects to a destination that lies outside the steered namespace. `client_port` is for `HOST:*`.
    pub(super) async fn dial_outside(
        &self,
        state: &RuleState,
        client_port: u16,
    ) -> Result<Onward, DialError> {
        let timeout = state.rule.connect_timeout.0;
        match &state.rule.to {
            Destination::Unix(path) => {
                let dial = async {
                    let stream = UnixStream::connect(path).await.map_err(Failure::from)?;
                    Ok((Stream::Unix(stream), Place::Outside, None))
                };
                within(timeout, Endpoint::Unix(path.clone()), dial).await
            }
            Destination::Host { host, port } => {
                let port = match port {
                    DestinationPort::Fixed(port) => *port,
                    DestinationPort::Client => client_port,
                };
                let addresses = match (host, &state.resolver) {
                    (Host::Address(address), _) => vec![*address],
                    (Host::Name(_), Some(resolver)) => resolver.addresses().to_vec(),
                    (Host::Name(_), None) => Vec::new(),
                };
                self.dial_addresses(&state.rule.to, &addresses, port, timeout).await
            }
            Destination::Original | Destination::Reject | Destination::Pass => Err(DialError {
                reason: NotDelivered::Unattributed,
                endpoint: Endpoint::Rule(state.rule.to.clone()),
                source: io::Error::other("not a destination outside the namespace"),
            }),
        }
    }

    /// To the original destination, from its own address: the application sees a client on an address of its
    /// namespace, and a loopback one only where the client asked for loopback.
    async fn dial_inside(&self, client: &TcpStream, original: SocketAddr) -> Dialled {
        let family = if original.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        loop {
            let socket = self.factory.socket(client.as_fd(), family).await.map_err(Failure::from)?;
            match dial_from_itself(socket, original, &self.bypass).await {
                Err(Failure { reason: None, source }) if is_busy(&source) => {}
                Err(failure) => return Err(failure),
                Ok((stream, guard)) => return Ok((Stream::Tcp(stream), Place::Inside, Some(guard))),
            }
        }
    }

    /// Tries the addresses one after the other; each has its share of what is left of the time.
    async fn dial_addresses(
        &self,
        destination: &Destination,
        addresses: &[IpAddr],
        port: u16,
        timeout: Duration,
    ) -> Result<Onward, DialError> {
        let deadline = Instant::now() + timeout;
        let mut last = DialError {
            reason: NotDelivered::Unresolved,
            endpoint: Endpoint::Rule(destination.clone()),
            source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        };
        for (index, address) in addresses.iter().enumerate() {
            let to = SocketAddr::new(*address, port);
            let remaining = u32::try_from(addresses.len() - index).expect("few addresses");
            let share = deadline.saturating_duration_since(Instant::now()) / remaining;
            match within(share, Endpoint::Tcp(to), self.dial_address(to)).await {
                Ok(onward) => return Ok(onward),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn dial_address(&self, to: SocketAddr) -> Dialled {
        let host = self.host.load_full();
        loop {
            let domain = if to.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
                .map_err(Failure::from)?;
            let Some(host) = &host else {
                let stream = connect(socket, to).await?;
                return Ok((Stream::Tcp(stream), Place::Outside, None));
            };
            // The daemon's own namespace is steered too. Only a connection to itself can come back to us there.
            match dial_from_itself(socket, to, host).await {
                Err(Failure { reason: None, source }) if is_busy(&source) => {}
                Err(Failure { reason: None, source }) if source.kind() == io::ErrorKind::AddrNotAvailable => {
                    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))
                        .map_err(Failure::from)?;
                    let stream = connect(socket, to).await?;
                    return Ok((Stream::Tcp(stream), Place::Outside, None));
                }
                Err(failure) => return Err(failure),
                Ok((stream, guard)) => return Ok((Stream::Tcp(stream), Place::Outside, Some(guard))),
            }
        }
    }
}

type Dialled = Result<(Stream, Place, Option<BypassGuard>), Failure>;

/// An error, and what it means where the errno does not say.
#[derive(Debug)]
struct Failure {
    reason: Option<NotDelivered>,
    source: io::Error,
}

impl From<io::Error> for Failure {
    fn from(source: io::Error) -> Self {
        Self { reason: None, source }
    }
}

/// Marks [`BypassError::Busy`] in an errno that bind(2) and connect(2) do not use.
fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ResourceBusy
}

/// Connects a socket to an address of its own namespace from that same address, past the program.
async fn dial_from_itself(
    socket: Socket,
    to: SocketAddr,
    bypass: &Arc<Bypass>,
) -> Result<(TcpStream, BypassGuard), Failure> {
    let mut from = to;
    from.set_port(0);
    socket.bind(&from.into()).map_err(|source| {
        let exhausted = source.kind() == io::ErrorKind::AddrInUse;
        Failure { reason: exhausted.then_some(NotDelivered::NoSourcePort), source }
    })?;
    let local = socket.local_addr().map_err(Failure::from)?;
    let local = local.as_socket().ok_or_else(|| io::Error::other("not an internet address"))?;
    let guard = bypass.enter(local).map_err(|error| match error {
        BypassError::Full => {
            Failure { reason: Some(NotDelivered::BypassFull), source: io::Error::other(error) }
        }
        BypassError::Busy => io::Error::new(io::ErrorKind::ResourceBusy, error).into(),
        BypassError::Syscall(source) => source.into(),
    })?;
    // The guard outlives the socket also when the connect fails or is given up.
    let stream = connect(socket, to).await?;
    Ok((stream, guard))
}

async fn connect(socket: Socket, to: SocketAddr) -> Result<TcpStream, Failure> {
    relay::set_tcp_options(&socket)?;
    Ok(TcpSocket::from_std_stream(socket.into()).connect(to).await?)
}

/// A dial with its time limit, and with its outcome classified.
async fn within(
    limit: Duration,
    endpoint: Endpoint,
    dial: impl Future<Output = Dialled>,
) -> Result<Onward, DialError> {
    match tokio::time::timeout(limit, dial).await {
        Ok(Ok((stream, place, guard))) => Ok(Onward { stream, endpoint, place, guard }),
        Ok(Err(Failure { reason, source })) => {
            let reason = reason.unwrap_or_else(|| classify(&source));
            Err(DialError { reason, endpoint, source })
        }
        Err(_) => Err(DialError {
            reason: NotDelivered::ConnectTimeout,
            endpoint,
            source: io::Error::from_raw_os_error(libc::ETIMEDOUT),
        }),
    }
}

fn classify(error: &io::Error) -> NotDelivered {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => NotDelivered::ConnectRefused,
        Some(libc::ETIMEDOUT) => NotDelivered::ConnectTimeout,
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => NotDelivered::Unreachable,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => NotDelivered::OutOfSockets,
        _ => NotDelivered::ConnectError,
    }
}
