//! The second leg: from a rule's destination to a connected stream.

mod connect;
mod door;
mod itself;
mod loops;
mod names;
mod remote;
mod source_ports;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{net::TcpStream, time::Instant};

pub use self::door::OwnSockets;
pub(crate) use self::{
    door::Door,
    itself::{Itself, Selves},
    loops::{Outgoing, OutgoingGuard},
    names::{Name, Names},
    remote::{Elsewhere, Remote, Remotes, leads_through_process},
    source_ports::SourcePorts,
};

use self::connect::{DialFailure, DialFrom, connect, connect_from_itself, is_to_itself, socket_for};
use crate::{
    config::{Destination, DestinationPort, Host},
    listener::OriginalDst,
    netns::{Anchor, Family, NetnsCookie, SocketFactory},
    observe::NotDelivered,
    relay::{self, Stream},
};

/// Where connections go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    pub(crate) to: &'a Destination,
    pub(crate) connect_timeout: Duration,
    pub(crate) whereabouts: &'a Whereabouts,
}

/// What is known of where a rule's destination is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Whereabouts {
    pub(crate) name: Option<Arc<Name>>,
    pub(crate) elsewhere: Option<Arc<Elsewhere>>,
    pub(crate) door: Option<Arc<Door>>,
    /// What may surprise.
    pub(crate) warning: Option<String>,
}

impl Whereabouts {
    /// Whether it can be said where the destination is.
    pub(crate) fn is_known(&self) -> bool {
        self.name.as_ref().is_none_or(|name| !name.is_unknown())
            && self.elsewhere.as_ref().is_none_or(|elsewhere| !elsewhere.is_gone())
    }
}

/// A connected second leg.
#[derive(Debug)]
pub(crate) struct Onward {
    pub(crate) stream: Stream,
    pub(crate) endpoint: Endpoint,
    /// Whether it lives in the steered namespace, where it must not be closed carelessly.
    pub(crate) place: Home,
    /// Dropped after the socket is closed.
    pub(crate) guards: Option<OutgoingGuard>,
}

impl Onward {
    /// Closes it, with nothing sent. In another namespace no orphan of it is left, which would keep that alive.
    fn end(self) {
        if let Home::Remote(_) | Home::Inside = self.place {
            relay::reset(self.stream);
        }
    }
}

/// Where an onward socket lives.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    /// In the steered namespace.
    Inside,
    /// In the daemon's.
    Outside,
    /// In one that the destination names.
    Remote(Arc<Remote>),
}

impl Home {
    /// Ready when a socket there would keep a namespace that has died. The steered one's death is told otherwise.
    pub(crate) async fn gone(&self) {
        match self {
            Self::Inside | Self::Outside => std::future::pending().await,
            Self::Remote(remote) => remote.gone().await,
        }
    }
}

/// Where a connection was taken, for the log.
#[derive(Clone, Debug)]
pub(crate) enum Endpoint {
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
pub(crate) struct DialError {
    pub(crate) reason: NotDelivered,
    pub(crate) endpoint: Endpoint,
    pub(crate) source: io::Error,
    /// Whether it is worth while to look where the destination is now.
    pub(crate) may_have_moved: bool,
}

/// What a dial needs of its surroundings.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// Makes sockets inside the steered namespace.
    pub(crate) factory: SocketFactory,
    /// Of the steered namespace.
    pub(crate) inside: Arc<Itself>,
    /// Of every namespace that is steered.
    pub(crate) selves: Arc<Selves>,
    /// The daemon's own namespace.
    pub(crate) own: NetnsCookie,
    /// Of the daemon.
    pub(crate) outgoing: Arc<Outgoing>,
}

impl Dialer {
    /// Connects to where the rule takes a connection. `client` is its first leg.
    pub(crate) async fn dial(
        &self,
        route: Route<'_>,
        client: &TcpStream,
        OriginalDst(original): OriginalDst,
    ) -> Result<Onward, DialError> {
        if *route.to == Destination::Original {
            let dial = self.dial_inside(client, original);
            return within(route.connect_timeout, Endpoint::Tcp(original), dial).await;
        }
        self.dial_outside(route, original.port()).await
    }

    /// Connects to a destination that lies outside the steered namespace. `client_port` is for `HOST:*`.
    pub(crate) async fn dial_outside(&self, route: Route<'_>, client_port: u16) -> Result<Onward, DialError> {
        let timeout = route.connect_timeout;
        match route.to {
            Destination::Unix(path) => {
                let dial = async {
                    let door =
                        route.whereabouts.door.as_ref().ok_or_else(|| io::Error::other("no socket"))?;
                    let stream = door.connect().await?;
                    Ok((Stream::Unix(stream), Home::Outside, None))
                };
                within(timeout, Endpoint::Unix(path.clone()), dial).await
            }
            Destination::Host { host, port } => {
                let port = match port {
                    DestinationPort::Fixed(port) => *port,
                    DestinationPort::Client => client_port,
                };
                match (host, &route.whereabouts.name) {
                    (Host::Name(_), Some(name)) => self.dial_name(name, route.to, port, timeout).await,
                    (Host::Name(_), None) => self.dial_addresses(route.to, &[], port, timeout).await,
                    (Host::Address(address), _) => {
                        self.dial_addresses(route.to, &[*address], port, timeout).await
                    }
                }
            }
            Destination::Inside { address, port, .. } => {
                let port = match port {
                    DestinationPort::Fixed(port) => *port,
                    DestinationPort::Client => client_port,
                };
                let to = SocketAddr::new(*address, port);
                let endpoint = Endpoint::Rule(route.to.clone());
                let dial = async {
                    let elsewhere = route
                        .whereabouts
                        .elsewhere
                        .as_ref()
                        .ok_or_else(|| io::Error::other("no namespace"))?;
                    self.dial_elsewhere(elsewhere, to, timeout).await
                };
                within(timeout, endpoint, dial).await
            }
            Destination::Original
            | Destination::Reject
            | Destination::Drop
            | Destination::Pass
            | Destination::Handoff => Err(DialError {
                reason: NotDelivered::Unattributed,
                endpoint: Endpoint::Rule(route.to.clone()),
                source: io::Error::other("not a destination outside the namespace"),
                may_have_moved: false,
            }),
        }
    }

    /// To the original destination, from its own address: the application sees a client on an address of its
    /// namespace, and a loopback one only where the client asked for loopback.
    async fn dial_inside(&self, client: &TcpStream, original: SocketAddr) -> Dialled {
        let family = if original.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let socket = || self.factory.socket(Anchor::Socket(client.as_fd()), family);
        let stream = connect_from_itself(socket, original, &self.inside).await?;
        Ok((Stream::Tcp(stream), Home::Inside, None))
    }

    /// Tries a name's addresses. When one of them refuses, or all are silent, the name is looked up again, and dialled where it
    /// leads now if that is elsewhere.
    async fn dial_name(
        &self,
        name: &Arc<Name>,
        destination: &Destination,
        port: u16,
        timeout: Duration,
    ) -> Result<Onward, DialError> {
        let deadline = Instant::now() + timeout;
        let tried = name.addresses();
        let moved = while_silent(timeout, name.again(&tried));
        let dialled = tokio::select! {
            biased;
            dialled = self.dial_addresses(destination, &tried, port, timeout) => dialled,
            now = moved => return self.dial_addresses(destination, &now, port, left(deadline)).await,
        };
        let error = match dialled {
            Ok(onward) => return Ok(onward),
            Err(error) if !error.may_have_moved => return Err(error),
            Err(error) => error,
        };
        match tokio::time::timeout_at(deadline, name.again(&tried)).await {
            Ok(Some(now)) => self.dial_addresses(destination, &now, port, left(deadline)).await,
            _ => Err(error),
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
            may_have_moved: addresses.is_empty(),
        };
        for (index, address) in addresses.iter().enumerate() {
            let to = SocketAddr::new(*address, port);
            let remaining = u32::try_from(addresses.len() - index).expect("few addresses");
            let share = deadline.saturating_duration_since(Instant::now()) / remaining;
            match within(share, Endpoint::Tcp(to), self.dial_address(to)).await {
                Ok(onward) => return Ok(onward),
                Err(error) => {
                    let may_have_moved = error.may_have_moved || last.may_have_moved;
                    last = DialError { may_have_moved, ..error };
                }
            }
        }
        Err(last)
    }

    async fn dial_address(&self, to: SocketAddr) -> Dialled {
        if let Some(host) = self.selves.get(self.own)
            && is_to_itself(to)
        {
            // The daemon's own namespace is steered too: only a connection to itself can come back to us there.
            let stream = connect_from_itself(async || socket_for(to), to, &host).await?;
            return Ok((Stream::Tcp(stream), Home::Outside, None));
        }
        let (stream, outgoing) = connect(socket_for(to)?, to, self.origin(self.own)).await?;
        Ok((Stream::from(stream), Home::Outside, outgoing))
    }
}

impl Dialer {
    /// Whether a rule's destination answers, or at least is there when it depends on the client where that is.
    pub(crate) async fn reaches(&self, route: Route<'_>) -> Result<(), DialError> {
        let not_there = |failure: DialFailure| {
            let (reason, source) = failure.classified();
            DialError { reason, endpoint: Endpoint::Rule(route.to.clone()), source, may_have_moved: false }
        };
        match (route.to, &route.whereabouts.elsewhere) {
            (Destination::Inside { port: DestinationPort::Client, .. }, Some(elsewhere)) => {
                elsewhere.remote().await.map(drop).map_err(not_there)
            }
            (Destination::Host { port: DestinationPort::Client, .. }, _) => {
                if route.whereabouts.name.as_ref().is_none_or(|name| !name.is_unknown()) {
                    return Ok(());
                }
                let source = io::Error::from(io::ErrorKind::NotFound);
                Err(not_there(DialFailure::Because(NotDelivered::Unresolved, source)))
            }
            // Whatever a connection says by being opened and closed: it is there.
            _ => match self.dial_outside(route, 0).await {
                Ok(onward) => {
                    onward.end();
                    Ok(())
                }
                Err(error) => Err(error),
            },
        }
    }

    fn origin(&self, netns: NetnsCookie) -> DialFrom<'_> {
        DialFrom { outgoing: &self.outgoing, netns }
    }

    async fn dial_elsewhere(&self, elsewhere: &Arc<Elsewhere>, to: SocketAddr, timeout: Duration) -> Dialled {
        let mut remote = elsewhere.remote().await?;
        // Once more where the name has come to mean another namespace.
        for is_last in [false, true] {
            let moved = while_silent(timeout, elsewhere.again(&remote));
            let dialled = tokio::select! {
                biased;
                () = remote.gone() => Err(io::Error::from(io::ErrorKind::NotFound).into()),
                dialled = self.dial_remote(&remote, to) => dialled,
                now = moved, if !is_last => {
                    remote = now;
                    continue;
                }
            };
            remote = match dialled {
                // Of no connect(2): the namespace could not be entered any more.
                Err(DialFailure::Errno(error)) if error.kind() == io::ErrorKind::NotFound => {
                    elsewhere.lost(&remote);
                    if is_last {
                        break;
                    }
                    elsewhere.remote().await?
                }
                Err(failure) if !is_last && failure.may_have_moved() => {
                    // Why the dial has failed is told, not that an engine does not answer.
                    match tokio::time::timeout(timeout / 2, elsewhere.again(&remote)).await {
                        Ok(Some(now)) => now,
                        _ => return Err(failure),
                    }
                }
                dialled => return dialled,
            };
        }
        let gone = io::Error::new(io::ErrorKind::NotFound, "it is gone");
        Err(DialFailure::Because(NotDelivered::NamespaceGone, gone))
    }

    async fn dial_remote(&self, remote: &Arc<Remote>, to: SocketAddr) -> Dialled {
        let family = if to.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
        let socket = || remote.factory.socket(Anchor::Location(&remote.location), family);
        let place = Home::Remote(Arc::clone(remote));
        if let Some(itself) = self.selves.get(remote.location.cookie) {
            match connect_from_itself(socket, to, &itself).await {
                // Not an address of that namespace: the connection leaves it, and does not meet our program there.
                Err(DialFailure::Errno(error)) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                connected => {
                    return Ok((Stream::Tcp(connected?), place, None));
                }
            }
        }
        let origin = self.origin(remote.location.cookie);
        let (stream, outgoing) = connect(socket().await?, to, origin).await?;
        Ok((Stream::from(stream), place, outgoing))
    }
}

/// How long a dial waits for an answer before it is asked whether the destination has moved.
const SILENT: Duration = Duration::from_secs(1);

/// Where a destination is now, when it has been silent for a while and is elsewhere; else never ready.
async fn while_silent<T>(timeout: Duration, again: impl Future<Output = Option<T>>) -> T {
    tokio::time::sleep(SILENT.min(timeout / 2)).await;
    match again.await {
        Some(now) => now,
        None => std::future::pending().await,
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

type Dialled = Result<(Stream, Home, Option<OutgoingGuard>), DialFailure>;

/// A dial with its time limit, and with its outcome classified.
async fn within(
    limit: Duration,
    endpoint: Endpoint,
    dial: impl Future<Output = Dialled>,
) -> Result<Onward, DialError> {
    match tokio::time::timeout(limit, dial).await {
        Ok(Ok((stream, place, guards))) => Ok(Onward { stream, endpoint, place, guards }),
        Ok(Err(failure)) => {
            let may_have_moved = failure.may_have_moved();
            let (reason, source) = failure.classified();
            Err(DialError { reason, endpoint, source, may_have_moved })
        }
        Err(_) => Err(DialError {
            reason: NotDelivered::ConnectTimeout,
            endpoint,
            source: io::Error::from_raw_os_error(libc::ETIMEDOUT),
            may_have_moved: true,
        }),
    }
}
