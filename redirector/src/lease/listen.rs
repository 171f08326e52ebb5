//! Listeners for a program that makes its own: where it calls listen(2) on a port, it gets a listener of the
//! namespace in the place of its socket.
//!
//! The call waits meanwhile ([`crate::sys::seccomp`]). A slot is empty until the program listens: its rule's
//! `on_unavailable` decides. What cannot be seen or done is an error of the program's call, never a socket that
//! listens where it was not meant to.

use std::{
    io,
    net::{IpAddr, Shutdown, SocketAddr},
    num::NonZeroU16,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    budget::Budget,
    holders::{Coverage, SocketAt, find, held, listens},
    leased::{Lease, LeasedSocket, leased_socket},
    looks::Looks,
    task::{FdKind, Task},
};
use crate::{
    listener::{self, Reach},
    netns::{self, NetnsFile},
    observe::RateLimit,
    steer::{Steered, Turns},
    sys::{
        self,
        aside::Aside,
        blocking::blocking,
        namespace::netns_of,
        seccomp::{self, Answer, Call, CloseOnExec, Next},
        socket::is_listening,
    },
    text::chain,
};

/// Who answers the calls of one program. Keeps nothing of the lease: a program that has lost it may live on.
pub(crate) struct Answers {
    pub(crate) turns: Arc<Turns>,
    pub(crate) netns: Weak<Steered>,
    pub(crate) lease: Weak<Lease>,
    pub(crate) port: NonZeroU16,
    /// The namespace that the program was started in: what it listens on elsewhere is not meant.
    pub(crate) home: NetnsFile,
    /// When it has not listened on the port after this long, it is told so.
    pub(crate) within: Duration,
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

/// Sockets that are remembered of one lease, before those that nobody holds are looked for. As many that somebody
/// holds, and there are no more.
const REMEMBERED: usize = 32;

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// What is logged of one program, each at most every few seconds.
#[derive(Default)]
struct Said {
    errors: RateLimit,
    others: RateLimit,
    shared: RateLimit,
    listens: RateLimit,
}

impl Answers {
    /// Answers until nobody is left who could call.
    pub(crate) async fn give(self, asked: OwnedFd) {
        if let Err(error) = self.answer_all(asked).await {
            tracing::error!(%error, "answer listen(2): the program cannot listen any more");
        }
    }

    async fn answer_all(self, asked: OwnedFd) -> io::Result<()> {
        let asked = Arc::new(sys::async_fd(asked, Interest::READABLE)?);
        let (said, looks) = (Said::default(), Looks::default());
        let late = tokio::time::sleep(self.within);
        tokio::pin!(late);
        let mut is_late = false;
        loop {
            // A program that calls all the time waits for its share of the daemon's.
            looks.turn().await;
            let mut ready = tokio::select! {
                ready = asked.readable() => ready?,
                () = &mut late, if !is_late => {
                    is_late = true;
                    self.lease.upgrade().into_iter().for_each(|lease| lease.tell_elsewhere(self.port));
                    continue;
                }
            };
            let from = Arc::clone(&asked);
            // It would wait where somebody else has taken the call meanwhile.
            match blocking(move || seccomp::next(from.get_ref())).await?? {
                Next::Call(call) => {
                    let answer = self.answer(&asked, call, (&looks, &said)).await.unwrap_or_else(|error| {
                        if let Some(suppressed) = said.errors.pass() {
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
        asked: &AsyncFd<OwnedFd>,
        call: Call,
        (looks, said): (&Looks, &Said),
    ) -> Result<Answer, BoxedError> {
        if !call.is_listen {
            return Ok(Answer::Continue);
        }
        let (port, home) = (self.port, self.home);
        let looked = looks.look(&[], move |aside, _| look(aside, call, port, home)).await?;
        if !call.is_waiting(asked.get_ref()) {
            // What was seen may be of another thread with its number. The answer reaches nobody.
            return Ok(REFUSED);
        }
        match looked? {
            Looked::Other => Ok(Answer::Continue),
            Looked::OtherPort(address) => {
                self.lease.upgrade().into_iter().for_each(|lease| lease.elsewhere.note(address));
                if let Some(suppressed) = said.others.pass() {
                    tracing::info!(%address, port, suppressed, "a program with --listen-as listens on another port, as without redirector");
                }
                Ok(Answer::Continue)
            }
            Looked::Wish(wish) => {
                let put = Put { asked: asked.get_ref(), call, wish, looks };
                self.put(put, said).await.map(|()| Answer::Done)
            }
        }
    }

    /// Puts a listener in the place of the socket: one that the program has for this already, as servers make one
    /// for each worker, or a new one.
    async fn put(&self, put: Put<'_>, said: &Said) -> Result<(), BoxedError> {
        let Put { wish, looks, .. } = put;
        let gone = || BoxedError::from("its rule is gone");
        let (netns, lease) = (self.netns.upgrade(), self.lease.upgrade());
        let (netns, lease) = (netns.ok_or_else(gone)?, lease.ok_or_else(gone)?);
        let is_over = || lease.has_ended() || !netns.is_steering() || !lease.is_in_force(&netns);
        if is_over() {
            return Err(gone());
        }
        let (rule, reach, address) = (&lease.rule.rule.name, wish.reach, wish.address);
        // A socket that nobody has any more is in no slot.
        let had = lease.current(reach);
        if had.iter().all(|one| lease.is_in_slot(&netns, one))
            && let Some(place) = listening(looks, had).await?
            && put.share(place).await?
        {
            if let Some(suppressed) = said.shared.pass() {
                tracing::info!(netns = %netns.target, %rule, %reach, %address, suppressed, "a program shares its listener");
            }
            return Ok(());
        }
        lease.make_room(&netns, looks).await?;
        let made = Arc::clone(&netns);
        let socket = blocking(move || make(&made, reach)).await??;
        let put = async {
            // Before the program has it: what somebody holds is known.
            lease.remember(&socket, wish)?;
            netns.instance.guard(socket.as_fd())?;
            put.replace(&socket).await?;
            // In turn with what ends leases and namespaces, and gives their places away.
            let _turn = self.turns.of(netns.cookie).await;
            if is_over() {
                return Err(gone());
            }
            reach.families().iter().try_for_each(|family| {
                netns.instance.set_listener(lease.slot(*family), socket.as_fd()).map_err(BoxedError::from)
            })
        };
        let put = put.await;
        if put.is_err() {
            // The program may have it all the same, and who looks for its listeners when the namespace dies may have looked.
            drop(SockRef::from(&socket).shutdown(Shutdown::Both));
        }
        // The program may have made of it what it likes.
        looks.let_go(socket.into());
        put?;
        // What the program closes from here on is closed.
        looks.settle().await;
        // It may close it and listen again, as often as it likes.
        if let Some(suppressed) = said.listens.pass() {
            tracing::info!(netns = %netns.target, %rule, %reach, %address, suppressed, "a program listens there");
        }
        Ok(())
    }
}

/// Where one of these is that listens, as far as it can be found: where it cannot, a new one is as good.
async fn listening(looks: &Looks, sockets: Vec<LeasedSocket>) -> io::Result<Option<SocketAt>> {
    if sockets.is_empty() {
        return Ok(None);
    }
    looks.look(&[], move |aside, _| find(aside, &sockets)).await
}

/// A call, and what is to be put in the place of its socket.
struct Put<'a> {
    asked: &'a OwnedFd,
    call: Call,
    wish: Wish,
    looks: &'a Looks,
}

impl Put<'_> {
    /// Puts a listener there that a process has. `false`: it has it no longer.
    async fn share(&self, place: SocketAt) -> Result<bool, BoxedError> {
        let Self { call, wish, .. } = *self;
        let shared = move |aside: &Aside, files: &[OwnedFd]| match place.take(aside) {
            Ok(socket) if listens(&socket) => wish.put(call, &files[0], &socket).map(|()| true),
            _ => Ok(false),
        };
        Ok(self.looks.look(&[self.asked.as_fd()], shared).await??)
    }

    /// Puts a new one there. Closing what was there before may take the program as long as it likes.
    async fn replace(&self, socket: &Socket) -> Result<(), BoxedError> {
        let Self { call, wish, .. } = *self;
        let put = move |_: &Aside, files: &[OwnedFd]| wish.put(call, &files[0], &files[1]);
        Ok(self.looks.look(&[self.asked.as_fd(), socket.as_fd()], put).await??)
    }
}

impl Wish {
    fn put(self, call: Call, asked: &OwnedFd, socket: impl AsFd) -> io::Result<()> {
        let socket = socket.as_fd();
        SockRef::from(&socket).set_nonblocking(self.nonblocking == Nonblocking::Yes)?;
        call.replace(asked, socket, self.close_on_exec)
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

    /// Forgets sockets that nobody holds, when many are remembered.
    ///
    /// # Errors
    ///
    /// When there are as many that somebody holds.
    async fn make_room(&self, netns: &Steered, looks: &Looks) -> Result<(), BoxedError> {
        let current = self.in_slots();
        let left = current.iter().filter(|one| !self.is_in_slot(netns, one));
        let left: Vec<u64> = left.map(|one| one.cookie).collect();
        let remembered = {
            let mut remembered = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            remembered.iter_mut().for_each(|one| one.left |= left.contains(&one.cookie));
            remembered.clone()
        };
        if remembered.len() < REMEMBERED {
            return Ok(());
        }
        let (held, seen) = looks.look(&[], move |aside, _| held(aside, &remembered)).await?;
        let mut remembered = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.retain(|one| held.contains(&one.cookie) || seen == Coverage::Part && !one.left);
        if remembered.len() < REMEMBERED { Ok(()) } else { Err("it has too many listeners already".into()) }
    }

    /// Remembers a new one.
    fn remember(&self, socket: &Socket, wish: Wish) -> Result<(), BoxedError> {
        let made = wish.reach.families().iter().map(|family| {
            let receiver = Some(wish.process);
            leased_socket(*family, wish.reach, socket).map(|made| LeasedSocket { receiver, ..made })
        });
        let made: Vec<LeasedSocket> = made.collect::<Result<_, _>>()?;
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).extend(made);
        Ok(())
    }
}

/// Makes a listener in the namespace.
fn make(netns: &Steered, reach: Reach) -> Result<Socket, BoxedError> {
    let socket = netns::enter(netns.open()?, || listener::bind(reach))??;
    let (_, cookie) = listener::cookies(socket.as_fd())?;
    if cookie != netns.cookie {
        return Err(format!("a listener came up in namespace {cookie} instead of {}", netns.cookie).into());
    }
    Ok(socket)
}

/// Looks at the socket that a call is about.
///
/// # Errors
///
/// When it cannot be seen, or must not be replaced.
fn look(aside: &Aside, call: Call, port: NonZeroU16, home: NetnsFile) -> Result<Looked, BoxedError> {
    let task = i32::try_from(call.thread).ok().filter(|thread| *thread > 0);
    let task = Task(task.ok_or("the program is in a PID namespace that the daemon does not see")?);
    let FdKind::Socket(inode) = task.file(call.fd)? else { return Ok(Looked::Other) };
    let socket = task.take(aside, call.fd, inode)?;
    let Some((reach, address)) = reach(&socket)? else { return Ok(Looked::Other) };
    if is_listening(&socket)? || SockRef::from(&socket).peer_addr().is_ok() {
        // It listens already, and sets the length of its queue, as nginx does of what it got here; or it is connected, and
        // cannot listen.
        return Ok(Looked::Other);
    }
    let is_home = netns_of(&socket).and_then(NetnsFile::of).map(|file| file == home);
    if address.port() != port.get() {
        return Ok(if is_home.unwrap_or(false) { Looked::OtherPort(address) } else { Looked::Other });
    }
    if !is_home? {
        return Ok(Looked::Other);
    }
    if task.polls(call.fd, &mut Budget::new())? {
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
fn reach(socket: &impl AsFd) -> io::Result<Option<(Reach, SocketAddr)>> {
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
