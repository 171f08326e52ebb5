//! Servers that say who they are.
//!
//! The first line that a client gets names the server, the peer as the server sees it, and the address that the
//! client reached: so a test can tell which path was taken. What follows is the handler's business; the usual
//! one sends everything back.
//!
//! Sockets are made inside a namespace; the threads that use them are outside, and do not keep it alive.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    path::Path,
    sync::{Arc, Condvar, Mutex, Weak},
    thread::{self, JoinHandle},
};

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::{HANG, netns::Netns};

/// Where a server has its sockets.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The namespace of the tests, which is the daemon's.
    Here,
    /// Another one.
    In(&'a Netns),
}

/// What a server does with a connection, after it has greeted. The connection is closed afterwards.
type Handler = dyn Fn(&Socket) + Send + Sync;

/// A listening server. Dropping it closes its sockets and ends its threads.
pub struct Server {
    addresses: Vec<SocketAddr>,
    listeners: Vec<Arc<Socket>>,
    acceptors: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    handler: Box<Handler>,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    peers: Vec<SocketAddr>,
    accepted: usize,
    running: usize,
    live: Vec<Weak<Socket>>,
}

impl Server {
    /// An echo server on a free port of 127.0.0.1, beside the daemon.
    #[track_caller]
    #[must_use]
    pub fn here(name: &str) -> Self {
        Self::start(Place::Here, name, &[(Ipv4Addr::LOCALHOST, 0).into()], echo)
    }

    /// An echo server on all addresses of a namespace, of both families.
    #[track_caller]
    #[must_use]
    pub fn inside(netns: &Netns, name: &str, port: u16) -> Self {
        Self::start(Place::In(netns), name, &everywhere(port), echo)
    }

    /// A server on these addresses.
    #[track_caller]
    #[must_use]
    pub fn start(
        place: Place<'_>,
        name: &str,
        addresses: &[SocketAddr],
        handler: impl Fn(&Socket) + Send + Sync + 'static,
    ) -> Self {
        let make = || addresses.iter().map(|address| listen(*address)).collect::<Vec<_>>();
        let listeners = match place {
            Place::Here => make(),
            Place::In(netns) => netns.enter(make),
        };
        Self::of(listeners, name, handler)
    }

    /// An echo server on a Unix socket.
    #[track_caller]
    #[must_use]
    pub fn unix(path: &Path, name: &str) -> Self {
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("socket");
        let address = SockAddr::unix(path).expect("a path that fits");
        listener.bind(&address).unwrap_or_else(|error| panic!("bind {}: {error}", path.display()));
        listener.listen(128).expect("listen");
        Self::of(vec![listener], name, echo)
    }

    /// A server on listening sockets that are there already.
    #[must_use]
    pub fn of(listeners: Vec<Socket>, name: &str, handler: impl Fn(&Socket) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            handler: Box::new(handler),
            state: Mutex::default(),
            ended: Condvar::new(),
        });
        let listeners: Vec<_> = listeners.into_iter().map(Arc::new).collect();
        let addresses = listeners
            .iter()
            .filter_map(|listener| listener.local_addr().expect("getsockname").as_socket())
            .collect();
        let acceptors = listeners
            .iter()
            .map(|listener| {
                let (listener, shared) = (Arc::clone(listener), Arc::clone(&shared));
                thread::spawn(move || accept(&listener, &shared))
            })
            .collect();
        Self { addresses, listeners, acceptors, shared }
    }

    /// Where it listens, in the order in which it was told to.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Its first address, as a destination is written.
    #[must_use]
    pub fn destination(&self) -> String {
        self.addresses[0].to_string()
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.state.lock().expect("no panic").accepted
    }

    /// Who connected, as it saw them, in that order.
    #[must_use]
    pub fn peers(&self) -> Vec<SocketAddr> {
        self.shared.state.lock().expect("no panic").peers.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for listener in &self.listeners {
            // Wakes accept(2), which says EINVAL from then on.
            drop(listener.shutdown(Shutdown::Both));
        }
        for acceptor in self.acceptors.drain(..) {
            drop(acceptor.join());
        }
        let state = self.shared.state.lock().expect("no panic");
        for connection in state.live.iter().filter_map(Weak::upgrade) {
            drop(connection.shutdown(Shutdown::Both));
        }
        let (state, timeout) =
            self.shared.ended.wait_timeout_while(state, HANG, |state| state.running > 0).expect("no panic");
        if timeout.timed_out() {
            eprintln!("server `{}`: {} connections do not end", self.shared.name, state.running);
        }
    }
}

/// Every address of both families.
#[must_use]
pub fn everywhere(port: u16) -> [SocketAddr; 2] {
    [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]
}

/// Binds and listens, for one family.
#[track_caller]
#[must_use]
pub fn listen(address: SocketAddr) -> Socket {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
    if address.is_ipv6() {
        listener.set_only_v6(true).expect("IPV6_V6ONLY");
    }
    listener.set_reuse_address(true).expect("SO_REUSEADDR");
    listener.bind(&address.into()).unwrap_or_else(|error| panic!("bind {address}: {error}"));
    listener.listen(4096).expect("listen");
    listener
}

/// Sends everything back until the client has no more to say.
pub fn echo(connection: &Socket) {
    let mut connection = connection;
    let mut buffer = [0; 16 * 1024];
    // Resets are the client's business.
    while let Ok(length @ 1..) = connection.read(&mut buffer) {
        if connection.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}

fn accept(listener: &Socket, shared: &Arc<Shared>) {
    loop {
        match listener.accept() {
            Ok((connection, peer)) => take(connection, &peer, shared),
            Err(error) if error.kind() == ErrorKind::InvalidInput => return,
            // What a client did to its connection before it was accepted.
            Err(error) => eprintln!("server `{}`: accept: {error}", shared.name),
        }
    }
}

fn take(connection: Socket, peer: &SockAddr, shared: &Arc<Shared>) {
    let connection = Arc::new(connection);
    let peer = peer.as_socket();
    let mut state = shared.state.lock().expect("no panic");
    state.accepted += 1;
    state.running += 1;
    state.peers.extend(peer);
    if state.live.len() == state.live.capacity() {
        state.live.retain(|one| one.strong_count() > 0);
    }
    state.live.push(Arc::downgrade(&connection));
    drop(state);
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        if greet(&connection, peer, &shared.name).is_ok() {
            (shared.handler)(&connection);
        }
        drop(connection);
        shared.state.lock().expect("no panic").running -= 1;
        shared.ended.notify_all();
    });
}

fn greet(connection: &Socket, peer: Option<SocketAddr>, name: &str) -> std::io::Result<()> {
    let mut connection = connection;
    SockRef::from(connection).set_read_timeout(Some(HANG))?;
    let local = connection.local_addr()?.as_socket();
    let shown = |address: Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |one| one.to_string());
    connection.write_all(format!("{name} {} {}\n", shown(peer), shown(local)).as_bytes())
}
