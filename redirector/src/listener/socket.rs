//! A listener that is accepted from, and bringing it back to life.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use socket2::Socket;
use tokio::net::TcpListener;

use super::bind::BACKLOG;
use crate::{
    netns::{Family, NetnsCookie},
    sys::{SyscallError, named, socket},
};

/// A listener that this process accepts from.
#[derive(Debug)]
pub struct Listener {
    family: Family,
    /// In an `Arc` so that the accept loop can hold it without the lock; taken only at start and revival.
    current: Mutex<Arc<TcpListener>>,
    cookie: OnceLock<u64>,
}

impl Listener {
    /// Registers a listener with the runtime of this task.
    ///
    /// # Errors
    ///
    /// As epoll_ctl(2).
    pub fn new(family: Family, listener: Socket) -> io::Result<Self> {
        let current = TcpListener::from_std(listener.into())?;
        Ok(Self { family, current: Mutex::new(Arc::new(current)), cookie: OnceLock::new() })
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

    /// The cookie of the socket. It is the same after a revival.
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn cookie(&self) -> Result<u64, SyscallError> {
        if let Some(known) = self.cookie.get() {
            return Ok(*known);
        }
        let cookie = named("getsockopt SO_COOKIE", socket2::SockRef::from(&*self.get()).cookie())?;
        Ok(*self.cookie.get_or_init(|| cookie))
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
