//! Hand-off: listeners that another program holds, and a rule that lasts as long as it does.
//!
//! The daemon keeps no duplicate of a listener that it gave away: a kept one would go on to take connections
//! that nobody accepts. When the receiver and all who share its listeners are gone, the slots are empty and the
//! rule's `on_unavailable` decides, until the rule is gone a moment later.

mod end;
mod holders;
mod listen;

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::stat::fstat;
use tokio::sync::oneshot;

use super::{
    Supervisor,
    attach::{Bound, Delivery, HostNetns, How, Put, Wanted},
    rules::RuleState,
};
use crate::{
    config::{
        DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, Destination, ParseError, RuleName, RuleSpec, Span,
        Target,
    },
    control::{Code, Error, LeaseKeeper, LeaseRequest, Leased, LeasedListener, Leases, Receiver, SCHEMA},
    listener::{self, Reach},
    netns::Family,
    sys,
};

/// A lease.
#[derive(Debug)]
pub(super) struct Lease {
    /// In force until the process ends, or somebody detaches it.
    pub(super) rule: Arc<RuleState>,
    /// In the daemon's PID namespace; for show.
    pub(super) pid: Option<i32>,
    /// All that the program got at first, or has got so far.
    listeners: Mutex<Vec<LeasedSocket>>,
    pidfd: OwnedFd,
    kill_after: Option<Span>,
    /// The process has ended. Others may still hold its listeners.
    ended: AtomicBool,
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
        let LeaseRequest { target, matches, name, on_unavailable, host_netns, kill_after, listen_as } =
            request;
        let Receiver { caller, pidfd, enclosed } = receiver;
        let asked = asked(&listen_as, enclosed)?;
        let spec = RuleSpec {
            name,
            matches,
            to: vec![Destination::Handoff],
            on_unavailable,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
        };
        spec.validate_lease().map_err(|ParseError(why)| Error::new(Code::Usage, why))?;
        let wanted = Wanted {
            target: target.clone(),
            spec,
            host_netns: if host_netns { HostNetns::Allowed } else { HostNetns::Refused },
            how: How::Lease(if asked.is_some() { Delivery::OnDemand } else { Delivery::AtOnce }),
        };
        let Put { answer, netns, state, listeners } = self.put(caller, wanted).await?;
        let netns = netns.ok_or_else(|| Error::new(Code::Failed, "no namespace was attached"))?;
        // From here on the rule is in force: whatever fails, the watcher takes it back.
        let (delivered, told) = oneshot::channel();
        let end = pidfd.try_clone();
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
            ended: AtomicBool::new(false),
        });
        if let Some(error) = failure {
            self.end_lease(&netns, &lease).await;
            return Err(error);
        }
        netns.leases.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&lease));
        if netns.is_aborted() {
            // It died before the lease was there to be revoked with the others.
            lease.revoke().await;
        }
        if let Some(asked) = asked {
            let answers = listen::Answers::new(&self, &netns, &lease, listen_as);
            tokio::spawn(answers.give(asked));
        }
        let supervisor = Arc::clone(&self);
        tokio::spawn(async move {
            if told.await.is_ok() {
                end::wait_for_end(end).await;
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

/// The fd by which the receiver asks for its listeners one by one, when it does.
fn asked(ports: &[std::num::NonZeroU16], enclosed: Vec<OwnedFd>) -> Result<Option<OwnedFd>, Error> {
    let mut enclosed = enclosed.into_iter();
    match (ports, enclosed.next(), enclosed.next()) {
        ([], None, None) => Ok(None),
        ([_, ..], Some(fd), None) if sys::seccomp::is_asked(&fd) => Ok(Some(fd)),
        ([], ..) => Err(Error::new(Code::Usage, "request: there are fds, and no `listen_as`")),
        ([_, ..], ..) => {
            Err(Error::new(Code::Usage, "request: `listen_as` needs one fd, a seccomp listener"))
        }
    }
}

impl Lease {
    pub(super) fn listeners(&self) -> Vec<LeasedSocket> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| std::io::Error::other("not an internet address"))?;
    let (cookie, _) = listener::cookies(socket.as_fd()).map_err(std::io::Error::other)?;
    let inode = fstat(socket)?.st_ino;
    Ok(LeasedSocket { family, reach, address, cookie, inode })
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
