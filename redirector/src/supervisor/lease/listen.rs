//! Listeners for a program that makes its own: where it calls listen(2) on a port, it gets a listener of the
//! namespace in the place of its socket.
//!
//! The call waits meanwhile ([`crate::sys::seccomp`]). A slot is empty until the program listens: its rule's
//! `on_unavailable` decides. What cannot be seen or done is an error of the program's call, never a socket that
//! listens where it was not meant to.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, PoisonError, Weak},
};

use redirector_ebpf::{PROTOCOL_TCP, slot};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Lease, LeasedSocket,
    holders::{held, holders},
    leased_socket,
    task::{File, Task},
};
use crate::{
    control::chain,
    listener::{self, Reach},
    netns::{self, NetnsFile},
    observe::RateLimit,
    supervisor::{Supervisor, namespace::Namespace},
    sys::{
        self,
        namespace::netns_of,
        seccomp::{self, Answer, Call, CloseOnExec, Next},
        socket::is_listening,
    },
};

/// Who answers the calls of one program. Keeps nothing of the lease: a program that has lost it may live on.
pub(super) struct Answers {
    pub(super) supervisor: Weak<Supervisor>,
    pub(super) netns: Weak<Namespace>,
    pub(super) lease: Weak<Lease>,
    pub(super) port: NonZeroU16,
    /// The namespace that the program was started in: what it listens on elsewhere is not meant.
    pub(super) home: NetnsFile,
}

/// What a call is about.
enum Looked {
    /// Not a TCP socket of the program's namespace.
    Other,
    /// One that is bound elsewhere.
    OtherPort(SocketAddr),
    Wish(Wish),
}

/// What a program wants to listen with.
#[derive(Clone, Copy)]
struct Wish {
    reach: Reach,
    address: SocketAddr,
    /// Its process.
    process: i32,
    /// `O_NONBLOCK` of its socket.
    nonblocking: Nonblocking,
    close_on_exec: CloseOnExec,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nonblocking {
    Yes,
    No,
}

/// As when the address that it has bound is not there any more.
const REFUSED: Answer = Answer::Fail(libc::EADDRNOTAVAIL);

/// Sockets that are remembered of one lease, before those that nobody holds are looked for.
const REMEMBERED: usize = 32;

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

impl Answers {
    /// Answers until nobody is left who could call.
    pub(super) async fn give(self, asked: OwnedFd) {
        if let Err(error) = self.answer_all(asked).await {
            tracing::error!(%error, "answer listen(2): the program cannot listen any more");
        }
    }

    async fn answer_all(self, asked: OwnedFd) -> io::Result<()> {
        let asked = Arc::new(sys::async_fd(asked, Interest::READABLE)?);
        let (errors, others) = (RateLimit::default(), RateLimit::default());
        loop {
            let mut ready = asked.readable().await?;
            let from = Arc::clone(&asked);
            // It would wait where somebody else has taken the call meanwhile.
            match tokio::task::spawn_blocking(move || seccomp::next(from.get_ref())).await?? {
                Next::Call(call) => {
                    let answer = self.answer(&asked, call, &others).await.unwrap_or_else(|error| {
                        if let Some(suppressed) = errors.pass() {
                            let error = chain(&*error);
                            tracing::error!(port = self.port, %error, suppressed, "listen(2) of a program with --listen-as fails");
                        }
                        REFUSED
                    });
                    if let Err(error) = call.answer(asked.get_ref(), answer) {
                        // It has been killed, or a signal has interrupted it.
                        tracing::debug!(%error, "answer listen(2)");
                    }
                }
                Next::Nothing => ready.clear_ready(),
                Next::Ended => return Ok(()),
            }
        }
    }

    async fn answer(
        &self,
        asked: &Arc<AsyncFd<OwnedFd>>,
        call: Call,
        others: &RateLimit,
    ) -> Result<Answer, BoxedError> {
        if !call.is_listen {
            return Ok(Answer::Continue);
        }
        let (port, home) = (self.port, self.home);
        let looked = tokio::task::spawn_blocking(move || look(call, port, home)).await?;
        if !call.is_waiting(asked.get_ref()) {
            // What was seen may be of another thread with its number. The answer reaches nobody.
            return Ok(REFUSED);
        }
        match looked? {
            Looked::Other => Ok(Answer::Continue),
            Looked::OtherPort(address) => {
                if let Some(suppressed) = others.pass() {
                    tracing::info!(%address, port, suppressed, "a program with --listen-as listens on another port, as without redirector");
                }
                Ok(Answer::Continue)
            }
            Looked::Wish(wish) => self.put(asked, call, wish).await,
        }
    }

    /// Puts a listener in the place of the socket: one that the program has for this already, as servers make one
    /// for each worker, or a new one.
    async fn put(&self, asked: &Arc<AsyncFd<OwnedFd>>, call: Call, wish: Wish) -> Result<Answer, BoxedError> {
        let gone = || BoxedError::from("its rule is gone");
        let (supervisor, netns, lease) =
            (self.supervisor.upgrade(), self.netns.upgrade(), self.lease.upgrade());
        let (supervisor, netns, lease) =
            (supervisor.ok_or_else(gone)?, netns.ok_or_else(gone)?, lease.ok_or_else(gone)?);
        let had = lease.current(wish.reach);
        let shared = tokio::task::spawn_blocking(move || {
            holders(&had).map(|holder| holder.socket).find(|socket| is_listening(socket).unwrap_or(false))
        });
        let shared = shared.await?;
        // In turn with what ends leases and namespaces, and gives their places away.
        let _table = supervisor.table.lock().await;
        if lease.has_ended() || !netns.is_steering() || !lease.is_in_force(&netns) {
            return Err(gone());
        }
        let asked = Arc::clone(asked);
        tokio::task::spawn_blocking(move || {
            let replace = |socket: &Socket| {
                socket.set_nonblocking(wish.nonblocking == Nonblocking::Yes)?;
                call.replace(asked.get_ref(), socket.as_fd(), wish.close_on_exec)
            };
            if let Some(shared) = shared {
                replace(&Socket::from(shared))?;
            } else {
                let socket = make(&netns, wish.reach)?;
                replace(&socket)?;
                steer_to(&netns, &lease, &socket, wish)?;
            }
            let (rule, address) = (&lease.rule.rule.name, wish.address);
            tracing::info!(netns = %netns.target, %rule, reach = %wish.reach, %address, "a program listens there");
            Ok(Answer::Done)
        })
        .await?
    }
}

impl Lease {
    /// The socket that is in the slots of all that this reaches, when one is, and has this reach.
    fn current(&self, reach: Reach) -> Vec<LeasedSocket> {
        let in_slots = self.in_slots();
        let of = |family| in_slots.iter().find(|one| one.family == family).cloned();
        let current: Option<Vec<_>> = reach.families().iter().map(|family| of(*family)).collect();
        current.filter(|current| current.iter().all(|one| one.reach == reach)).unwrap_or_default()
    }
}

/// Makes a listener in the namespace.
fn make(netns: &Namespace, reach: Reach) -> Result<Socket, BoxedError> {
    let socket = netns::enter(netns.open()?, || listener::bind(reach))??;
    let (_, cookie) = listener::cookies(socket.as_fd())?;
    if cookie != netns.cookie {
        return Err(format!("a listener came up in namespace {cookie} instead of {}", netns.cookie).into());
    }
    Ok(socket)
}

/// Puts a listener into the slots of what it reaches, and remembers it.
fn steer_to(netns: &Namespace, lease: &Lease, socket: &Socket, wish: Wish) -> Result<(), BoxedError> {
    let families = wish.reach.families();
    let made = families.iter().map(|family| {
        let receiver = Some(wish.process);
        leased_socket(*family, wish.reach, socket).map(|made| LeasedSocket { receiver, ..made })
    });
    let made: Vec<LeasedSocket> = made.collect::<Result<_, _>>()?;
    let mut remembered = lease.listeners();
    if remembered.len() >= REMEMBERED {
        let held = held(&remembered);
        remembered.retain(|one| held.contains(&one.cookie));
    }
    remembered.extend(made);
    // Before the slots: what is in them is known.
    *lease.listeners.lock().unwrap_or_else(PoisonError::into_inner) = remembered;
    for family in families {
        netns.instance.set_listener(slot(lease.rule.consumer, PROTOCOL_TCP, family.bit()), socket.as_fd())?;
    }
    Ok(())
}

/// Looks at the socket that a call is about.
///
/// # Errors
///
/// When it cannot be seen, or must not be replaced.
fn look(call: Call, port: NonZeroU16, home: NetnsFile) -> Result<Looked, BoxedError> {
    let task = i32::try_from(call.thread).ok().filter(|thread| *thread > 0);
    let task = Task(task.ok_or("the program is in a PID namespace that the daemon does not see")?);
    let File::Socket(inode) = task.file(call.fd)? else { return Ok(Looked::Other) };
    let socket = task.take(call.fd, inode)?;
    let Some((reach, address)) = reach(&socket)? else { return Ok(Looked::Other) };
    if address.port() != port.get() {
        return Ok(Looked::OtherPort(address));
    }
    if NetnsFile::of(netns_of(&socket)?)? != home {
        return Ok(Looked::Other);
    }
    if is_listening(&socket)? {
        // It listens already, and sets the length of its queue.
        return Ok(Looked::Other);
    }
    if task.polls(call.fd)? {
        return Err(
            "it waits for the socket with epoll before it listens, and would never see a connection".into()
        );
    }
    let flags = task.flags(call.fd)?;
    let is_set = |flag: i32| flags & flag != 0;
    Ok(Looked::Wish(Wish {
        reach,
        address,
        process: task.process()?,
        nonblocking: if is_set(libc::O_NONBLOCK) { Nonblocking::Yes } else { Nonblocking::No },
        close_on_exec: if is_set(libc::O_CLOEXEC) { CloseOnExec::Yes } else { CloseOnExec::No },
    }))
}

/// What connections a TCP socket would take, and where it is bound.
fn reach(socket: &OwnedFd) -> io::Result<Option<(Reach, SocketAddr)>> {
    let socket = SockRef::from(socket);
    let domain = socket.domain()?;
    if ![Domain::IPV4, Domain::IPV6].contains(&domain) || socket.r#type()? != Type::STREAM {
        return Ok(None);
    }
    // The listener that it gets is a TCP one: clients of MPTCP fall back.
    if !matches!(socket.protocol()?.map(i32::from), Some(libc::IPPROTO_TCP | libc::IPPROTO_MPTCP)) {
        return Ok(None);
    }
    let Some(address) = socket.local_addr()?.as_socket() else { return Ok(None) };
    let reach = match address.ip() {
        IpAddr::V4(_) => Reach::Ipv4,
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Reach::MappedIpv4,
        // An MPTCP socket does not say so on kernels before 6.15; then it is what such sockets are by default.
        IpAddr::V6(ip) if ip.is_unspecified() && !socket.only_v6().unwrap_or(false) => Reach::Both,
        IpAddr::V6(_) => Reach::Ipv6,
    };
    Ok(Some((reach, address)))
}
