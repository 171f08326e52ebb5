//! Making a listener, and bringing it back to life.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::set_tcp_options;
use crate::{
    netns::{Family, NetnsCookie},
    sys::{SyscallError, named, socket},
};

/// Connections that wait to be accepted; the namespace's `net.core.somaxconn` may be less (4096 by default).
const BACKLOG: i32 = 4096;

/// Above the usual `ip_local_port_range` (32768 to 60999), so that neither clients nor servers of the
/// namespace meet our port: a server that binds the same port on the wildcard address would get EADDRINUSE.
const FIRST_PORT: u16 = 61_000;

/// Ports tried before giving up. With half of the range taken all are taken once in 2^64.
const PORTS_TRIED: u64 = 64;

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The kernel has this family not at all (`ipv6.disable=1`): none of its packets can arrive either.
    #[error("the kernel has no {0}")]
    NoFamily(Family),
    /// No port from 61000 up is free.
    #[error("no free port from {FIRST_PORT} up on the {0} loopback address")]
    NoPort(Family),
    /// Anything else.
    #[error("make the {0} listener")]
    Syscall(Family, #[source] SyscallError),
}

/// Makes a listening socket in the namespace of this thread. It needs CAP_NET_ADMIN over that namespace
/// (`IP_TRANSPARENT`), but neither the loopback device up nor its address: `IP_FREEBIND`.
///
/// Time-outs and `TCP_NODELAY` are set here, once: accepted sockets inherit them.
///
/// # Errors
///
/// [`BindError`].
pub fn bind(family: Family) -> Result<Socket, BindError> {
    let listener = unbound(family)?;
    for port in ports() {
        if bind_to(&listener, family, port)? {
            return listening(listener, family);
        }
    }
    Err(BindError::NoPort(family))
}

/// One listener for each family that the kernel has, as [`bind`] makes them, on one port.
///
/// # Errors
///
/// [`BindError`].
pub fn bind_pair() -> Result<Vec<(Family, Socket)>, BindError> {
    let mut unbound_pair = Vec::new();
    for port in ports() {
        unbound_pair.clear();
        for family in [Family::Ipv4, Family::Ipv6] {
            match unbound(family) {
                Ok(socket) => unbound_pair.push((family, socket)),
                // None of its packets can come either.
                Err(BindError::NoFamily(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let mut bound = true;
        for (family, socket) in &unbound_pair {
            bound = bound && bind_to(socket, *family, port)?;
        }
        if bound {
            return unbound_pair
                .into_iter()
                .map(|(family, socket)| Ok((family, listening(socket, family)?)))
                .collect();
        }
    }
    Err(BindError::NoPort(Family::Ipv4))
}

/// Ports to try, from [`FIRST_PORT`] up, in no order.
fn ports() -> impl Iterator<Item = u16> {
    let random = RandomState::new();
    (0..PORTS_TRIED).map(move |attempt| {
        let ports = u64::from(u16::MAX - FIRST_PORT) + 1;
        FIRST_PORT + u16::try_from(random.hash_one(attempt) % ports).expect("less than 65536")
    })
}

/// Whether the port was free.
fn bind_to(socket: &Socket, family: Family, port: u16) -> Result<bool, BindError> {
    let address: SocketAddr = match family {
        Family::Ipv4 => (Ipv4Addr::LOCALHOST, port).into(),
        Family::Ipv6 => (Ipv6Addr::LOCALHOST, port).into(),
    };
    match socket.bind(&address.into()) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        result => {
            named("bind", result).map_err(|error| BindError::Syscall(family, error))?;
            Ok(true)
        }
    }
}

fn listening(socket: Socket, family: Family) -> Result<Socket, BindError> {
    named("listen", socket.listen(BACKLOG)).map_err(|error| BindError::Syscall(family, error))?;
    Ok(socket)
}

/// A socket with every option of a listener.
fn unbound(family: Family) -> Result<Socket, BindError> {
    let domain = match family {
        Family::Ipv4 => Domain::IPV4,
        Family::Ipv6 => Domain::IPV6,
    };
    let other = |error| BindError::Syscall(family, error);
    let listener = match Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP)) {
        Ok(listener) => listener,
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
            return Err(BindError::NoFamily(family));
        }
        result @ Err(_) => named("socket", result).map_err(other)?,
    };
    match family {
        Family::Ipv4 => {
            named("setsockopt IP_TRANSPARENT", listener.set_ip_transparent_v4(true)).map_err(other)?;
            named("setsockopt IP_FREEBIND", listener.set_freebind_v4(true)).map_err(other)?;
        }
        Family::Ipv6 => {
            named("setsockopt IPV6_V6ONLY", listener.set_only_v6(true)).map_err(other)?;
            let transparent = socket::set_option(&listener, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1);
            named("setsockopt IPV6_TRANSPARENT", transparent).map_err(other)?;
            named("setsockopt IPV6_FREEBIND", listener.set_freebind_v6(true)).map_err(other)?;
        }
    }
    named("setsockopt keep-alive", set_tcp_options(&listener)).map_err(other)?;
    Ok(listener)
}

/// A listener that this process accepts from.
#[derive(Debug)]
pub struct Listener {
    family: Family,
    /// In an `Arc` so that the accept loop can hold it without the lock; taken only at start and revival.
    current: Mutex<Arc<TcpListener>>,
}

impl Listener {
    /// Registers a listener with the runtime of this task.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2).
    pub fn new(family: Family, listener: Socket) -> io::Result<Self> {
        let current = TcpListener::from_std(listener.into())?;
        Ok(Self { family, current: Mutex::new(Arc::new(current)) })
    }

    /// Its family.
    #[must_use]
    pub fn family(&self) -> Family {
        self.family
    }

    /// The socket as it is now.
    #[must_use]
    pub fn get(&self) -> Arc<TcpListener> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the kernel has it in `LISTEN`.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        socket::is_listening(&*self.get()).unwrap_or(false)
    }

    /// Brings a listener that was killed from inside (`ss -K`) back to `LISTEN`, on the same address: a killed
    /// socket keeps its binding.
    ///
    /// It keeps its shutdown too (`tcp_done`, net/ipv4/tcp.c), which every accepted socket would inherit: so it
    /// is disconnected first. And the runtime must learn of it anew: it keeps the hang-up that the killing made
    /// for as long as an fd is registered, and would call the listener readable for ever.
    ///
    /// # Errors
    ///
    /// As connect(2), listen(2).
    pub fn revive(&self) -> Result<(), SyscallError> {
        let dead = self.get();
        named("connect AF_UNSPEC", socket::disconnect(&*dead))?;
        named("listen", socket::listen(&*dead, BACKLOG))?;
        let again = named("dup", dead.as_fd().try_clone_to_owned())?;
        let again = named("epoll_ctl", TcpListener::from_std(again.into()))?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(again);
        Ok(())
    }

    /// Where it is bound.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.get().local_addr()
    }
}

/// The cookies of a socket: its own, and that of the namespace it lives in.
///
/// # Errors
///
/// As getsockopt(2), and [`NetnsCookie::of`].
pub fn cookies(socket: BorrowedFd<'_>) -> Result<(u64, NetnsCookie), SyscallError> {
    let own = named("getsockopt SO_COOKIE", socket2::SockRef::from(&socket).cookie())?;
    Ok((own, NetnsCookie::of(socket)?))
}
