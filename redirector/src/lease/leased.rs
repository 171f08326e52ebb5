//! A lease, and what is remembered of the listeners that were given away with it.

use std::{
    num::NonZeroU16,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::stat::fstat;
use redirector_ebpf::{PROTOCOL_TCP, slot};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    elsewhere::Elsewhere,
    heirs::{Heirs, Unserved},
    looks::Looks,
};
use crate::{
    config::Span,
    control::{Code, Error, LeaseNews},
    listener::{self, Reach, Reaching},
    netns::Family,
    steer::{RuleState, Steered},
};

/// A lease.
#[derive(Debug)]
pub(crate) struct Lease {
    /// In force until the process ends, or somebody detaches it.
    pub(crate) rule: Arc<RuleState>,
    /// In the daemon's PID namespace; for show.
    pub(crate) pid: Option<i32>,
    /// What the program got at first, or has got so far; of one family the last is in the slot.
    pub(super) listeners: Mutex<Vec<LeasedSocket>>,
    pub(super) pidfd: OwnedFd,
    pub(super) kill_after: Option<Span>,
    /// That the program runs as.
    pub(super) user: u32,
    /// It is over. Others may still hold its listeners.
    ended: AtomicBool,
    pub(crate) terms: Terms,
    /// Who wants to be told of it.
    news: Mutex<Option<UnboundedSender<LeaseNews>>>,
    /// Who holds the listeners since the process has ended.
    pub(crate) heirs: Heirs,
    /// Listeners that were taken out of their slots because nobody accepts from them.
    pub(super) unserved: Unserved,
    /// Where the program listens that should have listened on a port.
    pub(super) elsewhere: Elsewhere,
    /// Of its files, and for its listeners.
    pub(super) looks: Looks,
}

/// What its program has asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) goes_on: GoesOn,
    /// For how long nobody may accept although somebody waits, when the process has ended. Zero: for ever.
    pub(crate) accept_within: Duration,
    /// The port on which it gets listeners when it listens.
    pub(crate) listen_as: Option<NonZeroU16>,
}

/// Whether a lease goes on when its process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GoesOn {
    /// While anybody holds the listeners.
    WithListeners,
    No,
}

/// What is remembered of a listener that was given away.
#[derive(Clone, Debug)]
pub(crate) struct LeasedSocket {
    pub(crate) family: Family,
    /// Of the socket, which may be in both slots. Then it is remembered once for each.
    pub(crate) reach: Reach,
    pub(crate) address: std::net::SocketAddr,
    /// Of the socket.
    pub(crate) cookie: u64,
    /// Inode in sockfs: how it shows among the fds of a process.
    pub(super) inode: u64,
    /// The process that got it, which may have given it on since.
    pub(super) receiver: Option<i32>,
    /// Its slots were empty when another one came: it seems to be closed.
    pub(super) left: bool,
}

/// Who holds it.
#[derive(Debug)]
pub(crate) struct Holder {
    /// In the daemon's PID namespace.
    pub(crate) pid: Option<i32>,
    pub(crate) pidfd: OwnedFd,
    /// That it runs as.
    pub(crate) user: u32,
    /// How long it has to end when its namespace has died; `None` for one that is not told to.
    pub(crate) kill_after: Option<Span>,
}

impl Lease {
    /// A rule that is in force, and what its holder gets.
    pub(crate) fn new(
        rule: Arc<RuleState>,
        listeners: Vec<LeasedSocket>,
        holder: Holder,
        (terms, news): (Terms, Option<UnboundedSender<LeaseNews>>),
    ) -> Self {
        let Holder { pid, pidfd, user, kill_after } = holder;
        Self {
            rule,
            pid,
            listeners: Mutex::new(listeners),
            pidfd,
            kill_after,
            user,
            ended: AtomicBool::new(false),
            terms,
            news: Mutex::new(news),
            heirs: Heirs::default(),
            unserved: Unserved::default(),
            elsewhere: Elsewhere::default(),
            looks: Looks::default(),
        }
    }

    pub(crate) fn listeners(&self) -> Vec<LeasedSocket> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells whoever wants to know.
    pub(crate) fn tell(&self, news: LeaseNews) {
        if let Some(sender) = &*self.news() {
            // It may have stopped listening.
            drop(sender.send(news));
        }
    }

    fn news(&self) -> MutexGuard<'_, Option<UnboundedSender<LeaseNews>>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The slot of a family.
    pub(crate) fn slot(&self, family: Family) -> u32 {
        slot(self.rule.consumer, PROTOCOL_TCP, family.bit())
    }

    /// Whether a listener is in its slot.
    pub(crate) fn is_in_slot(&self, netns: &Steered, socket: &LeasedSocket) -> bool {
        netns.instance.listener_cookie(self.slot(socket.family)).ok().flatten() == Some(socket.cookie)
    }

    /// The last one of each family: what its slots have when it is in force.
    pub(crate) fn in_slots(&self) -> Vec<LeasedSocket> {
        let listeners = self.listeners();
        let last = |family| listeners.iter().rev().find(|one| one.family == family).cloned();
        [Family::Ipv4, Family::Ipv6].into_iter().filter_map(last).collect()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// It is over, or its program was never told of it.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.heirs.end();
    }

    /// Its rule is gone: there is nothing more to tell.
    pub(crate) fn tell_no_more(&self) {
        drop(self.news().take());
    }

    /// Its program has had the time to listen on its port: tells it where it listens instead, once.
    pub(super) fn tell_elsewhere(&self, port: NonZeroU16) {
        if self.listeners().is_empty()
            && let Some(addresses) = self.elsewhere.take()
        {
            let rule = &self.rule.rule.name;
            tracing::warn!(%rule, port, ?addresses, "a program with --listen-as has not listened on its port");
            self.tell(LeaseNews::ListensElsewhere { port, addresses });
        }
    }

    /// Its program has ended: tells the same when it has listened elsewhere only.
    pub(crate) fn tell_elsewhere_at_the_end(&self) {
        if let Some(port) = self.terms.listen_as.filter(|_| self.elsewhere.is_anywhere()) {
            self.tell_elsewhere(port);
        }
    }

    /// Whether its rule decides about packets. One that has taken its name or its place since is another.
    pub(crate) fn is_in_force(&self, netns: &Steered) -> bool {
        netns.published.load().current.rules().iter().any(|one| Arc::ptr_eq(one, &self.rule))
    }
}

/// What is remembered of listeners that are given away at once.
///
/// # Errors
///
/// When the kernel does not tell.
pub(crate) fn describe(listeners: &Reaching) -> Result<Vec<LeasedSocket>, Error> {
    let one = |(reach, socket): &(Reach, socket2::Socket)| {
        // Servers expect what they inherit to block, as systemd passes it.
        socket.set_nonblocking(false)?;
        let of = |family: &Family| leased_socket(*family, *reach, socket);
        reach.families().iter().map(of).collect::<std::io::Result<Vec<_>>>()
    };
    let described = listeners.iter().map(one).collect::<Result<Vec<_>, _>>();
    described.map(|described| described.concat()).map_err(|error| Error::chain(Code::Failed, &error))
}

pub(super) fn leased_socket(
    family: Family,
    reach: Reach,
    socket: &socket2::Socket,
) -> std::io::Result<LeasedSocket> {
    // What its receiver accepts inherits it: see `listener::accept`. It is not revived, so its port may be lost.
    socket.set_reuse_address(true)?;
    let address = socket.local_addr()?.as_socket();
    let address = address.ok_or_else(|| std::io::Error::other("not an internet address"))?;
    let (cookie, _) = listener::cookies(socket.as_fd()).map_err(std::io::Error::other)?;
    let inode = fstat(socket)?.st_ino;
    Ok(LeasedSocket { family, reach, address, cookie, inode, receiver: None, left: false })
}
