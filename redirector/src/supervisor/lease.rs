//! Hand-off: listeners that another program holds, and a rule that lasts as long as it does.
//!
//! The daemon keeps no duplicate of a listener that it gave away: a kept one would go on to take connections
//! that nobody accepts. When the receiver and all who share its listeners are gone, the slots are empty and the
//! rule's `on_unavailable` decides, until the rule is gone a moment later.

use std::{
    fs,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    sync::{Arc, PoisonError},
    time::Duration,
};

use nix::sys::{signal::Signal, stat::fstat};
use redirector_ebpf::slot;
use socket2::SockRef;
use tokio::{io::Interest, sync::oneshot};

use super::{
    Supervisor,
    attach::{Bound, HostNetns, How, Put, Wanted},
    namespace::Namespace,
};
use crate::{
    config::{
        DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, Destination, ParseError, RuleName, RuleSpec, Span,
        Target,
    },
    control::{Code, Error, LeaseKeeper, LeaseRequest, Leased, LeasedListener, Leases, Receiver, SCHEMA},
    listener,
    netns::Family,
    sys::{
        self,
        namespace::{pidfd_getfd, pidfd_send_signal},
    },
};

/// A lease in force.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) rule: RuleName,
    pub(super) consumer: u32,
    /// In the daemon's PID namespace; for show.
    pub(super) pid: Option<i32>,
    pub(super) listeners: Vec<LeasedSocket>,
    pidfd: OwnedFd,
    kill_after: Option<Span>,
}

/// What is remembered of a listener that was given away.
#[derive(Debug)]
pub(super) struct LeasedSocket {
    pub(super) family: Family,
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
        let LeaseRequest { target, matches, name, on_unavailable, host_netns, kill_after } = request;
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
            how: How::Lease,
        };
        let Put { answer, netns, consumer, listeners } = self.put(receiver.caller, wanted).await?;
        let netns = netns.ok_or_else(|| Error::new(Code::Failed, "no namespace was attached"))?;
        let rule = answer.rule;
        // From here on the rule is in force: whatever fails, the watcher takes it back.
        let (delivered, told) = oneshot::channel();
        let end = receiver.pidfd.try_clone();
        let described = describe(&listeners);
        let (sockets, failure) = match described {
            Ok(sockets) => (sockets, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let named = named_listeners(&sockets, &target, &rule);
        let lease = Arc::new(Lease {
            rule: rule.clone(),
            consumer,
            pid: receiver.caller.pid,
            listeners: sockets,
            pidfd: receiver.pidfd,
            kill_after,
        });
        if let Some(error) = failure {
            self.end_lease(&netns, &lease).await;
            return Err(error);
        }
        // First: one before it may have had the same name and place, and been detached.
        netns.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(0, Arc::clone(&lease));
        let supervisor = Arc::clone(&self);
        tokio::spawn(async move {
            if told.await.is_ok() {
                wait_for_end(end).await;
            }
            supervisor.end_lease(&netns, &lease).await;
        });
        let leased = Leased {
            schema: SCHEMA,
            cookie: answer.cookie,
            rule,
            listeners: named,
            warnings: answer.warnings,
            foreign_programs: answer.foreign_programs,
            existing_connections: answer.existing_connections,
        };
        let fds = listeners.into_iter().map(|(_, socket)| socket.into()).collect();
        Ok((leased, fds, Keeper(delivered)))
    }
}

async fn wait_for_end(pidfd: std::io::Result<OwnedFd>) {
    let pidfd = pidfd.and_then(|pidfd| sys::async_fd(pidfd, Interest::READABLE));
    let ended = match &pidfd {
        Ok(pidfd) => pidfd.readable().await.map(drop),
        Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
    };
    if let Err(error) = ended {
        // Without it the lease would last for ever.
        tracing::error!(%error, "watch the receiver of listeners; its lease ends now");
    }
}

impl Supervisor {
    /// Takes a lease's rule away; steering ends when it was the last.
    async fn end_lease(&self, netns: &Arc<Namespace>, lease: &Arc<Lease>) {
        let mut table = self.table.lock().await;
        netns.leases.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| !Arc::ptr_eq(one, lease));
        let Lease { rule, consumer, .. } = &**lease;
        if !lease.has_its_place(netns) {
            return;
        }
        let current = Arc::clone(&netns.published.load().current);
        let in_force = current.get(rule).is_some_and(|state| state.consumer == *consumer)
            && table.get(&netns.cookie).is_some_and(|one| Arc::ptr_eq(one, netns));
        if in_force {
            if let Err(error) = self.remove_rules(&mut table, netns, std::slice::from_ref(rule)).await {
                tracing::error!(netns = %netns.target, %rule, %error, "end the lease");
                return;
            }
            tracing::info!(netns = %netns.target, %rule, "the lease has ended");
        }
        // Who shares the receiver's listeners may still hold them: they must not get a later consumer's traffic.
        for family in [Family::Ipv4, Family::Ipv6] {
            netns.instance.clear_listener(slot(*consumer, family.bit()));
        }
    }
}

impl Lease {
    /// Whether nobody else has got its consumer number since. Its rule may have been detached while it lasted.
    fn has_its_place(&self, netns: &Namespace) -> bool {
        self.listeners.iter().all(|one| {
            let there = netns.instance.listener_cookie(slot(self.consumer, one.family.bit())).ok().flatten();
            there.is_none_or(|cookie| cookie == one.cookie)
        })
    }

    /// The namespace has died: what holds its listeners must not keep it.
    pub(super) fn revoke(&self) {
        self.shut_down();
        let Some(Span(kill_after)) = self.kill_after else { return };
        if pidfd_send_signal(&self.pidfd, Signal::SIGTERM as i32).is_err() {
            return;
        }
        match self.pidfd.try_clone() {
            Ok(pidfd) => drop(tokio::spawn(kill_later(pidfd, kill_after))),
            Err(error) => {
                tracing::warn!(%error, "dup; ending the receiver of listeners at once");
                drop(pidfd_send_signal(&self.pidfd, Signal::SIGKILL as i32));
            }
        }
    }

    /// Shuts the listeners down wherever the receiver has them: who accepts from them is woken.
    fn shut_down(&self) {
        let Some(pid) = self.pid else { return };
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let is_ours = fs::metadata(entry.path())
                .is_ok_and(|metadata| self.listeners.iter().any(|one| one.inode == metadata.ino()));
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (true, Some(number)) = (is_ours, number)
                && let Ok(socket) = pidfd_getfd(&self.pidfd, number)
                && self.is_ours(&socket)
            {
                drop(SockRef::from(&socket).shutdown(std::net::Shutdown::Both));
            }
        }
    }

    /// Inode numbers are per filesystem, and a number may be another file's by now.
    fn is_ours(&self, socket: &OwnedFd) -> bool {
        let cookie = SockRef::from(socket).cookie().ok();
        self.listeners.iter().any(|one| Some(one.cookie) == cookie)
    }
}

async fn kill_later(pidfd: OwnedFd, after: Duration) {
    let Ok(ended) = pidfd.try_clone().and_then(|pidfd| sys::async_fd(pidfd, Interest::READABLE)) else {
        return;
    };
    if tokio::time::timeout(after, ended.readable()).await.is_err() {
        tracing::warn!("the receiver of a dead namespace's listeners does not end; SIGKILL");
        drop(pidfd_send_signal(&pidfd, Signal::SIGKILL as i32));
    }
}

fn describe(listeners: &Bound) -> Result<Vec<LeasedSocket>, Error> {
    let one = |(family, socket): &(Family, socket2::Socket)| {
        // Servers expect what they inherit to block, as systemd passes it.
        socket.set_nonblocking(false)?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| std::io::Error::other("not an internet address"))?;
        let (cookie, _) = listener::cookies(socket.as_fd()).map_err(std::io::Error::other)?;
        let inode = fstat(socket)?.st_ino;
        std::io::Result::Ok(LeasedSocket { family: *family, address, cookie, inode })
    };
    listeners.iter().map(one).collect::<Result<_, _>>().map_err(|error| Error::chain(Code::Failed, &error))
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
