//! One steered namespace as a value: what exists for it, and how it ends.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use socket2::Socket;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    black_hole::BlackHole,
    limits::Limits,
    places::Share,
    rules::{Published, RuleState, RuleTable},
    slots::Relay,
    tally::phrase,
};
use crate::{
    config::Target,
    dial::{DialError, Dialer},
    kernel::{AttachedProgram, Instance},
    listener::Listener,
    locate::{ContainerId, Registration},
    netns::{NetnsCookie, NetnsFile},
    observe::{Connections, Ended, NotDelivered, RateLimit},
};

/// Where a namespace is in its life with us. Only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Life {
    /// New connections come to us.
    Steering,
    /// New connections go to the application; ours go on to their end.
    Detached,
    /// Ours are reset: the namespace died, or the drain deadline has come.
    Aborted,
}

/// A rule whose destination has stopped to answer.
#[derive(Debug)]
pub(crate) struct WentDown {
    pub(crate) netns: Arc<Steered>,
    pub(crate) rule: Arc<RuleState>,
}

/// A namespace that is steered, or was and has connections left.
#[derive(Debug)]
pub(crate) struct Steered {
    /// As it was first named.
    pub(crate) target: Target,
    pub(crate) cookie: NetnsCookie,
    pub(crate) file: NetnsFile,
    /// For as long as anything of ours may be there.
    pub(crate) watched: Registration,
    /// That it was first found by.
    pub(crate) container: Option<ContainerId>,
    /// It is the host's own.
    pub(crate) host: bool,
    pub(crate) limits: Arc<Limits>,
    /// Its part of the places for connections.
    pub(crate) share: Arc<Share>,
    pub(crate) instance: Instance,
    pub(crate) dialer: Dialer,
    /// Read by every connection, without a lock.
    pub(crate) published: ArcSwap<Published>,
    pub(crate) connections: Connections,
    /// One for each connection.
    pub(crate) tasks: TaskTracker,
    pub(crate) foreign_programs: Mutex<Vec<AttachedProgram>>,
    pub(crate) listeners_revived: AtomicU64,
    pub(crate) slots_restored: AtomicU64,
    pub(crate) links_restored: AtomicU64,
    /// One for each listener.
    pub(crate) acceptors: TaskTracker,
    /// Where a rule can need the relay.
    pub(crate) relay: Mutex<Relay>,
    /// Leads there, until steering ends.
    pub(crate) anchor: Mutex<Option<Socket>>,
    /// Where a rule can leave clients without an answer.
    pub(crate) black_hole: Mutex<BlackHole>,
    pub(super) life: watch::Sender<Life>,
    /// No handshake is under way any more that our listeners have answered, or it is not waited for.
    pub(super) handshakes_over: CancellationToken,
    log_limits: OnceLock<Box<LogLimits>>,
    went_down: mpsc::UnboundedSender<WentDown>,
}

/// Of what is logged of connections, by what became of them. Made for the first one that fails.
#[derive(Debug, Default)]
struct LogLimits {
    not_delivered: [RateLimit; NotDelivered::ALL.len()],
    ended: [RateLimit; Ended::ALL.len()],
}

/// What a namespace is made of.
pub(crate) struct SteeredParts {
    pub(crate) target: Target,
    pub(crate) cookie: NetnsCookie,
    pub(crate) file: NetnsFile,
    pub(crate) watched: Registration,
    pub(crate) container: Option<ContainerId>,
    pub(crate) host: bool,
    pub(crate) limits: Arc<Limits>,
    pub(crate) share: Arc<Share>,
    pub(crate) instance: Instance,
    pub(crate) dialer: Dialer,
    pub(crate) table: Arc<RuleTable>,
    pub(crate) anchor: Socket,
    pub(crate) foreign_programs: Vec<AttachedProgram>,
    pub(crate) went_down: mpsc::UnboundedSender<WentDown>,
}

impl Steered {
    pub(crate) fn new(parts: SteeredParts) -> Arc<Self> {
        let SteeredParts {
            target,
            cookie,
            file,
            watched,
            container,
            host,
            limits,
            share,
            instance,
            dialer,
            table,
            anchor,
            foreign_programs,
            went_down,
        } = parts;
        Arc::new(Self {
            target,
            cookie,
            file,
            watched,
            container,
            host,
            share,
            limits,
            instance,
            dialer,
            published: ArcSwap::from_pointee(Published::new(table, None)),
            connections: Connections::default(),
            tasks: TaskTracker::new(),
            foreign_programs: Mutex::new(foreign_programs),
            listeners_revived: AtomicU64::new(0),
            slots_restored: AtomicU64::new(0),
            links_restored: AtomicU64::new(0),
            acceptors: TaskTracker::new(),
            relay: Mutex::default(),
            anchor: Mutex::new(Some(anchor)),
            black_hole: Mutex::default(),
            life: watch::Sender::new(Life::Steering),
            handshakes_over: CancellationToken::new(),
            log_limits: OnceLock::new(),
            went_down,
        })
    }

    /// As they were found a moment ago.
    pub(crate) fn set_foreign_programs(&self, found: Vec<AttachedProgram>) {
        *self.foreign_programs.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Whether new connections come to us.
    pub(crate) fn is_steering(&self) -> bool {
        *self.life.borrow() == Life::Steering
    }

    /// Whether it has been let go of at once.
    pub(crate) fn is_aborted(&self) -> bool {
        *self.life.borrow() == Life::Aborted
    }

    pub(crate) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Ready when the listeners can be closed without resetting a client whose handshake was under way when steering ended.
    pub(crate) async fn handshakes_over(&self) {
        self.handshakes_over.cancelled().await;
    }

    pub(crate) fn log_limit(&self, reason: NotDelivered) -> &RateLimit {
        &self.log_limits.get_or_init(Box::default).not_delivered[reason as usize]
    }

    pub(crate) fn log_limit_of_ends(&self, how: Ended) -> &RateLimit {
        &self.log_limits.get_or_init(Box::default).ended[how as usize]
    }

    /// A dial of this rule has failed. Whether that takes it down depends on the reason: it must say something about the
    /// destination.
    pub(crate) fn dial_failed(self: &Arc<Self>, rule: &Arc<RuleState>, error: &DialError) {
        rule.tally.dial_failed(error);
        let of_destination = matches!(
            error.reason,
            NotDelivered::ConnectRefused
                | NotDelivered::ConnectTimeout
                | NotDelivered::Unreachable
                | NotDelivered::Unresolved
                | NotDelivered::NamespaceGone
                | NotDelivered::OwnSocket
                | NotDelivered::ConnectError
        );
        if of_destination && rule.dial_failed(|| phrase(error)) {
            self.tell_down(rule);
        }
    }

    /// Takes down the rules whose destination lies in a namespace that is gone.
    pub(crate) fn take_down_gone(self: &Arc<Self>) {
        for rule in self.published.load().current.rules() {
            if rule.whereabouts.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.is_gone())
                && rule.take_down(|| NotDelivered::NamespaceGone.words().into())
            {
                self.tell_down(rule);
            }
        }
    }

    /// Has a rule that is down tried until it is up.
    pub(crate) fn tell_down(self: &Arc<Self>, rule: &Arc<RuleState>) {
        // Without a receiver the daemon is ending.
        drop(self.went_down.send(WentDown { netns: Arc::clone(self), rule: Arc::clone(rule) }));
    }

    /// The relay's listeners.
    pub(crate) fn listeners(&self) -> Vec<Arc<Listener>> {
        self.relay().listeners().to_vec()
    }

    pub(crate) fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of all our sockets there.
    pub(super) fn close_sockets(&self) {
        self.relay().close();
        self.black_hole.lock().unwrap_or_else(PoisonError::into_inner).keep(&[], &self.instance);
        drop(self.anchor.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Counts a slot or a listener that was mended.
    pub(crate) fn count_mended(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// An fd of the namespace, for as long as it is used: never kept.
    pub(crate) fn open(&self) -> io::Result<std::os::fd::OwnedFd> {
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let anchor = anchor.as_ref().ok_or_else(|| io::Error::other("not steered any more"))?;
        crate::sys::namespace::netns_of(anchor.as_fd())
    }
}
