//! A lease, and what is remembered of the listeners that were given away with it.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::stat::fstat;

use super::looks::Looks;
use crate::{
    config::Span,
    control::{Code, Error},
    listener::{self, Bound, Reach},
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
    /// The process has ended. Others may still hold its listeners.
    ended: AtomicBool,
    /// Of its files, and for its listeners.
    pub(super) looks: Looks,
}

/// What is remembered of a listener that was given away.
#[derive(Clone, Debug)]
pub(crate) struct LeasedSocket {
    pub(crate) family: Family,
    /// Of the socket, which may be in both slots.
    pub(super) reach: Reach,
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
    pub(crate) fn new(rule: Arc<RuleState>, listeners: Vec<LeasedSocket>, holder: Holder) -> Self {
        let Holder { pid, pidfd, user, kill_after } = holder;
        let (listeners, ended, looks) = (Mutex::new(listeners), AtomicBool::new(false), Looks::default());
        Self { rule, pid, listeners, pidfd, kill_after, user, ended, looks }
    }

    pub(crate) fn listeners(&self) -> Vec<LeasedSocket> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// The process has ended, or was never told of it.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
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
pub(crate) fn describe(listeners: &Bound) -> Result<Vec<LeasedSocket>, Error> {
    let one = |(family, socket): &(Family, socket2::Socket)| {
        // Servers expect what they inherit to block, as systemd passes it.
        socket.set_nonblocking(false)?;
        leased_socket(*family, Reach::only(*family), socket)
    };
    listeners.iter().map(one).collect::<Result<_, _>>().map_err(|error| Error::chain(Code::Failed, &error))
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
