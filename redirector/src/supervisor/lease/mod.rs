//! Hand-off: listeners that another program holds, and a rule that lasts as long as it does.
//!
//! The daemon keeps no duplicate of a listener that it gave away: a kept one would go on to take connections
//! that nobody accepts. When the receiver and all who share its listeners are gone, the slots are empty and the
//! rule's `on_unavailable` decides, until the rule is gone a moment later.

mod budget;
mod end;
mod holders;
mod listen;
mod looks;
mod registry;
mod task;

use std::{
    fs::File,
    num::NonZeroU16,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::stat::fstat;
use tokio::sync::oneshot;

use self::looks::Looks;
pub(super) use self::registry::Registry;
use super::{
    Supervisor,
    attach::{Delivery, HostNetns, How, Put, Wanted},
    rules::RuleState,
};
use crate::{
    config::{
        DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, Destination, Origin, ParseError, RuleName, RuleSpec,
        Span, Target,
    },
    control::{
        Caller, Code, Enclosed, Error, LeaseKeeper, LeaseRequest, Leased, LeasedListener, Leases, Receiver,
        SCHEMA,
    },
    listener::{self, Bound, Reach},
    netns::{Family, NetnsFile},
    sys,
};

/// A lease.
#[derive(Debug)]
pub(super) struct Lease {
    /// In force until the process ends, or somebody detaches it.
    pub(super) rule: Arc<RuleState>,
    /// In the daemon's PID namespace; for show.
    pub(super) pid: Option<i32>,
    /// What the program got at first, or has got so far; of one family the last is in the slot.
    listeners: Mutex<Vec<LeasedSocket>>,
    pidfd: OwnedFd,
    kill_after: Option<Span>,
    /// That the program runs as.
    user: u32,
    /// The process has ended. Others may still hold its listeners.
    ended: AtomicBool,
    /// Of its files, and for its listeners.
    looks: Looks,
}

/// What is remembered of a listener that was given away.
#[derive(Clone, Debug)]
pub(super) struct LeasedSocket {
    pub(super) family: Family,
    /// Of the socket, which may be in both slots.
    reach: Reach,
    pub(super) address: std::net::SocketAddr,
    /// Of the socket.
    pub(super) cookie: u64,
    /// Inode in sockfs: how it shows among the fds of a process.
    inode: u64,
    /// The process that got it, which may have given it on since.
    receiver: Option<i32>,
    /// Its slots were empty when another one came: it seems to be closed.
    left: bool,
}

/// Ends the lease when it is dropped before [`LeaseKeeper::delivered`].
#[derive(Debug)]
pub struct Keeper(oneshot::Sender<()>);

impl LeaseKeeper for Keeper {
    fn delivered(self) {
        // The other end waits for it.
        let _told: Result<(), ()> = self.0.send(());
    }
}

impl Leases for Supervisor {
    type Keeper = Keeper;

    async fn lease(
        self: Arc<Self>,
        receiver: Receiver,
        request: LeaseRequest,
    ) -> Result<(Leased, Vec<OwnedFd>, Keeper), Error> {
        let LeaseRequest {
            target,
            matches,
            from,
            except,
            interfaces,
            priority,
            name,
            on_unavailable,
            coexist,
            host_netns,
            kill_after,
            listen_as,
            user,
        } = request;
        let Receiver { caller, pidfd, enclosed } = receiver;
        let asked = asked(listen_as, enclosed, caller, &pidfd)?;
        // Before anything is made: a lease whose end nobody sees would last for ever.
        let end = end::watch(&pidfd)
            .map_err(|error| Error::new(Code::Failed, format!("watch the program that asks: {error}")))?;
        let spec = RuleSpec {
            name,
            matches,
            from,
            except,
            interfaces,
            priority,
            to: vec![Destination::Handoff],
            on_unavailable,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            coexist,
        };
        spec.validate_lease().map_err(|ParseError(why)| Error::new(Code::Usage, why))?;
        let wanted = Wanted {
            target: target.clone(),
            spec,
            host_netns: if host_netns { HostNetns::Allowed } else { HostNetns::Refused },
            how: How::Lease(if asked.is_some() { Delivery::OnDemand } else { Delivery::AtOnce }),
            origin: Origin::Lease,
        };
        let Put { answer, netns, state, listeners } = self.put(caller, wanted).await?;
        let netns = netns.ok_or_else(|| Error::new(Code::Failed, "no namespace was attached"))?;
        // From here on the rule is in force: whatever fails, the watcher takes it back.
        let (delivered, told) = oneshot::channel();
        let described = describe(&listeners);
        let (sockets, failure) = match described {
            Ok(sockets) => (sockets, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let named = named_listeners(&sockets, &target, &answer.rule);
        let lease = Arc::new(Lease {
            rule: state,
            pid: caller.pid,
            listeners: Mutex::new(sockets),
            pidfd,
            kill_after,
            user: user.or(caller.uid).unwrap_or(u32::MAX),
            ended: AtomicBool::new(false),
            looks: Looks::default(),
        });
        self.leases.add(&netns, &lease);
        if netns.is_aborted() {
            // It died before the lease was there to be revoked with the others.
            for lease in self.leases.bury(&netns) {
                lease.revoke().await;
            }
        }
        if !netns.is_steering() {
            // Or it was detached; who holds its listeners is wanted when it dies.
            self.draining.push(&netns);
        }
        if let Some(error) = failure {
            self.end_lease(&netns, &lease).await;
            return Err(error);
        }
        if let Some(Asked { fd, port, home }) = asked {
            let (supervisor, netns, lease) =
                (Arc::downgrade(&self), Arc::downgrade(&netns), Arc::downgrade(&lease));
            tokio::spawn(listen::Answers { supervisor, netns, lease, port, home }.give(fd));
        }
        let supervisor = Arc::clone(&self);
        tokio::spawn(async move {
            if told.await.is_ok() {
                end::wait_for_end(Ok(end)).await;
            }
            supervisor.end_lease(&netns, &lease).await;
        });
        let leased = Leased {
            schema: SCHEMA,
            cookie: answer.cookie,
            rule: answer.rule,
            listeners: named,
            warnings: answer.warnings,
            foreign_programs: answer.foreign_programs,
            existing_connections: answer.existing_connections,
        };
        let fds = listeners.into_iter().map(|(_, socket)| socket.into()).collect();
        Ok((leased, fds, Keeper(delivered)))
    }
}

/// How a receiver asks for its listeners one by one.
struct Asked {
    fd: OwnedFd,
    port: NonZeroU16,
    /// The namespace that it is in.
    home: NetnsFile,
}

/// Takes what a request with `listen_as` needs; finds out before anything is made whether it can work.
fn asked(
    port: Option<NonZeroU16>,
    enclosed: Enclosed,
    caller: Caller,
    receiver: &OwnedFd,
) -> Result<Option<Asked>, Error> {
    let (port, fd) = match (port, enclosed) {
        (None, Enclosed::Nothing) => return Ok(None),
        (Some(port), Enclosed::Asked(fd)) => (port, fd),
        (None, _) => return Err(Error::new(Code::Usage, "request: there are fds, and no `listen_as`")),
        (Some(_), _) => {
            return Err(Error::new(Code::Usage, "request: `listen_as` needs one fd, a seccomp listener"));
        }
    };
    let failed = |why: &str| Error::new(Code::Failed, format!("listen_as: {why}"));
    let Some(pid) = caller.pid else {
        return Err(failed("the program is in another PID namespace than the daemon"));
    };
    let home = File::open(format!("/proc/{pid}/ns/net")).and_then(NetnsFile::of);
    let home = home.map_err(|error| failed(&format!("open `/proc/{pid}/ns/net`: {error}")))?;
    // It has no such fd: what counts is whether it may be looked at.
    match sys::namespace::pidfd_getfd(receiver, i32::MAX) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let error = failed(&format!("pidfd_getfd of process {pid}: {error}"));
            Err(error.with_hint("the daemon needs CAP_SYS_PTRACE to look at what the program listens with"))
        }
        _ => Ok(Some(Asked { fd, port, home })),
    }
}

impl Lease {
    pub(super) fn listeners(&self) -> Vec<LeasedSocket> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last one of each family: what its slots have when it is in force.
    pub(super) fn in_slots(&self) -> Vec<LeasedSocket> {
        let listeners = self.listeners();
        let last = |family| listeners.iter().rev().find(|one| one.family == family).cloned();
        [Family::Ipv4, Family::Ipv6].into_iter().filter_map(last).collect()
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }
}

fn describe(listeners: &Bound) -> Result<Vec<LeasedSocket>, Error> {
    let one = |(family, socket): &(Family, socket2::Socket)| {
        // Servers expect what they inherit to block, as systemd passes it.
        socket.set_nonblocking(false)?;
        leased_socket(*family, Reach::only(*family), socket)
    };
    listeners.iter().map(one).collect::<Result<_, _>>().map_err(|error| Error::chain(Code::Failed, &error))
}

fn leased_socket(family: Family, reach: Reach, socket: &socket2::Socket) -> std::io::Result<LeasedSocket> {
    // What its receiver accepts inherits it: see `listener::accept`. It is not revived, so its port may be lost.
    socket.set_reuse_address(true)?;
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| std::io::Error::other("not an internet address"))?;
    let (cookie, _) = listener::cookies(socket.as_fd()).map_err(std::io::Error::other)?;
    let inode = fstat(socket)?.st_ino;
    Ok(LeasedSocket { family, reach, address, cookie, inode, receiver: None, left: false })
}

/// `LISTEN_FDNAMES` are separated by colons, so they hold none.
fn named_listeners(listeners: &[LeasedSocket], target: &Target, rule: &RuleName) -> Vec<LeasedListener> {
    let target: String = target
        .to_string()
        .chars()
        .map(|one| if one == ':' || one.is_control() { '=' } else { one })
        .collect();
    listeners
        .iter()
        .map(|LeasedSocket { family, address, .. }| LeasedListener {
            family: *family,
            address: *address,
            name: format!("{target}/{rule}/{family}"),
        })
        .collect()
}
