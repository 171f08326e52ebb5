//! Listeners for a program that makes its own: where it calls listen(2) on one of some ports, it gets a listener of
//! the namespace in the place of its socket.
//!
//! The call waits meanwhile ([`crate::sys::seccomp`]). Nothing else of the program is looked at or changed, and a
//! slot is empty until the program listens: its rule's `on_unavailable` decides. A program that has lost its rule
//! gets an error, and not a socket that listens somewhere else.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, PoisonError},
};

use redirector_ebpf::slot;
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Lease, LeasedSocket, holders::holders, leased_socket};
use crate::{
    control::Error,
    listener::{self, Reach},
    netns::{self, NetnsCookie},
    supervisor::{Supervisor, blocking, failed, namespace::Namespace},
    sys::{
        self,
        namespace::{pidfd_getfd, pidfd_open},
        seccomp::{self, Answer, Call, CloseOnExec, Next},
        socket::is_listening,
    },
};

/// Who answers the calls of one program.
pub(super) struct Answers {
    supervisor: Arc<Supervisor>,
    netns: Arc<Namespace>,
    lease: Arc<Lease>,
    ports: Vec<NonZeroU16>,
}

/// What a program wants to listen with.
struct Wish {
    reach: Reach,
    address: SocketAddr,
    /// `O_NONBLOCK` of its socket.
    nonblocking: Nonblocking,
    close_on_exec: CloseOnExec,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nonblocking {
    Yes,
    No,
}

/// Why a program that listens gets an error: as when the address that it has bound is not there any more.
const REFUSED: Answer = Answer::Fail(libc::EADDRNOTAVAIL);

impl Answers {
    pub(super) fn new(
        supervisor: &Arc<Supervisor>,
        netns: &Arc<Namespace>,
        lease: &Arc<Lease>,
        ports: Vec<NonZeroU16>,
    ) -> Self {
        Self { supervisor: Arc::clone(supervisor), netns: Arc::clone(netns), lease: Arc::clone(lease), ports }
    }

    /// Answers until nobody is left who could call.
    pub(super) async fn give(self, asked: OwnedFd) {
        let target = self.netns.target.clone();
        if let Err(error) = self.answer_all(asked).await {
            tracing::error!(netns = %target, %error, "answer listen(2): the program cannot listen any more");
        }
    }

    async fn answer_all(self, asked: OwnedFd) -> io::Result<()> {
        let asked = sys::async_fd(asked, Interest::READABLE)?;
        loop {
            let mut ready = asked.readable().await?;
            match seccomp::next(asked.get_ref())? {
                Next::Call(call) => {
                    let answer = self.answer(&asked, call).await;
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

    async fn answer(&self, asked: &AsyncFd<OwnedFd>, call: Call) -> Answer {
        let wish = match tokio::task::spawn_blocking(move || wish(call)).await {
            Ok(Ok(wish)) if call.is_waiting(asked.get_ref()) => wish,
            // What it is about cannot be seen: not a socket of ours to give, then.
            _ => None,
        };
        let wish = wish.filter(|wish| self.ports.iter().any(|port| port.get() == wish.address.port()));
        let Some(wish) = wish else { return Answer::Continue };
        let listener = match self.listener(wish.reach).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(netns = %self.netns.target, rule = %self.lease.rule.rule.name, %error, address = %wish.address, "a listener for listen(2)");
                return REFUSED;
            }
        };
        let given = listener
            .set_nonblocking(wish.nonblocking == Nonblocking::Yes)
            .and_then(|()| call.replace(asked.get_ref(), listener.as_fd(), wish.close_on_exec));
        match given {
            Ok(()) => {
                tracing::info!(netns = %self.netns.target, rule = %self.lease.rule.rule.name, reach = %wish.reach, address = %wish.address, "the program listens there");
                Answer::Done
            }
            Err(error) => {
                tracing::debug!(%error, "give a listener");
                REFUSED
            }
        }
    }

    /// The listener that the program has for this already, as servers make one for each worker, or a new one.
    async fn listener(&self, reach: Reach) -> Result<Socket, Error> {
        // In turn with what ends leases and gives their places away.
        let _table = self.supervisor.table.lock().await;
        if self.lease.has_ended() || !self.lease.is_in_force(&self.netns) {
            let why = io::Error::other("the rule is gone");
            return Err(failed("listen in", &self.netns.target, &why));
        }
        let (netns, lease) = (Arc::clone(&self.netns), Arc::clone(&self.lease));
        blocking(move || {
            let had: Vec<_> = lease.listeners().into_iter().filter(|one| one.reach == reach).collect();
            for holder in holders(&had) {
                if is_listening(&holder.socket).unwrap_or(false) {
                    return Ok(Socket::from(holder.socket));
                }
            }
            make(&netns, &lease, reach).map_err(|error| failed("listen in", &netns.target, &*error))
        })
        .await
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a listener in the namespace, and puts it into the slots.
fn make(netns: &Namespace, lease: &Lease, reach: Reach) -> Result<Socket, BoxedError> {
    let socket = netns::enter(netns.open()?, || listener::bind(reach))??;
    let (_, cookie) = listener::cookies(socket.as_fd())?;
    if cookie != netns.cookie {
        let NetnsCookie(other) = cookie;
        return Err(format!("a listener came up in namespace {other} instead").into());
    }
    let made = reach.families().iter().map(|family| leased_socket(*family, reach, &socket));
    let made: Vec<LeasedSocket> = made.collect::<Result<_, _>>()?;
    for family in reach.families() {
        netns.instance.set_listener(slot(lease.rule.consumer, family.bit()), socket.as_fd())?;
    }
    let mut listeners = lease.listeners.lock().unwrap_or_else(PoisonError::into_inner);
    listeners.retain(|one| !reach.families().contains(&one.family));
    listeners.extend(made);
    Ok(socket)
}

/// What a call is about, when it is about a TCP socket.
fn wish(call: Call) -> io::Result<Option<Wish>> {
    let process = process_of(call.thread)?;
    let socket = pidfd_getfd(pidfd_open(process)?, call.fd)?;
    let Some((reach, address)) = reach(&socket)? else { return Ok(None) };
    let flags = flags(call.thread, call.fd)?;
    let is_set = |flag: i32| flags & flag != 0;
    Ok(Some(Wish {
        reach,
        address,
        nonblocking: if is_set(libc::O_NONBLOCK) { Nonblocking::Yes } else { Nonblocking::No },
        close_on_exec: if is_set(libc::O_CLOEXEC) { CloseOnExec::Yes } else { CloseOnExec::No },
    }))
}

/// What connections a socket would take, and where it is bound.
fn reach(socket: &OwnedFd) -> io::Result<Option<(Reach, SocketAddr)>> {
    let socket = SockRef::from(socket);
    let domain = socket.domain()?;
    let is_tcp = matches!(
        socket.protocol()?.map(i32::from),
        // The listener that it gets is a TCP one: clients of MPTCP fall back.
        Some(libc::IPPROTO_TCP | libc::IPPROTO_MPTCP)
    );
    if !is_tcp || socket.r#type()? != Type::STREAM || ![Domain::IPV4, Domain::IPV6].contains(&domain) {
        return Ok(None);
    }
    let Some(address) = socket.local_addr()?.as_socket() else { return Ok(None) };
    let reach = match address.ip() {
        IpAddr::V4(_) => Reach::Ipv4,
        // Bound to a mapped address it takes IPv4 alone, and says who came as IPv6 sockets do.
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Reach::Both,
        IpAddr::V6(ip) if ip.is_unspecified() && !socket.only_v6()? => Reach::Both,
        IpAddr::V6(_) => Reach::Ipv6,
    };
    Ok(Some((reach, address)))
}

/// The process that a thread is of.
fn process_of(thread: u32) -> io::Result<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    process.ok_or_else(|| io::Error::other("no Tgid"))
}

/// `O_…` flags of a fd, close-on-exec included.
fn flags(thread: u32, fd: i32) -> io::Result<i32> {
    let info = fs::read_to_string(format!("/proc/{thread}/fdinfo/{fd}"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok());
    flags.ok_or_else(|| io::Error::other("no flags"))
}
