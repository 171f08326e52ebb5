//! One steered namespace: what exists for it, and how it begins and ends.

use std::{
    io,
    os::fd::AsFd as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use socket2::Socket;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::{
    black_hole::BlackHole,
    limits::Limits,
    places::Share,
    rules::{Published, RuleState, RuleTable},
    sockets::Relay,
};
use crate::{
    config::Target,
    dial::Dialer,
    kernel::{AttachedProgram, Instance, InstanceError, Prepared},
    locate::ContainerId,
    netns::{NetnsCookie, NetnsFile},
    observe::{Connections, Ended, NotDelivered, RateLimit},
};

/// Where a namespace is in its life with us. Only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Life {
    /// New connections come to us.
    Steering,
    /// New connections go to the application; ours go on to their end.
    Detached,
    /// Ours are reset: the namespace died, or the drain deadline has come.
    Aborted,
}

/// A rule whose destination has stopped to answer.
#[derive(Debug)]
pub(super) struct WentDown {
    pub(super) netns: Arc<Namespace>,
    pub(super) rule: Arc<RuleState>,
}

/// A namespace that is steered, or was and has connections left.
#[derive(Debug)]
pub(super) struct Namespace {
    /// As it was first named.
    pub(super) target: Target,
    pub(super) cookie: NetnsCookie,
    pub(super) file: NetnsFile,
    /// That it was first found by.
    pub(super) container: Option<ContainerId>,
    /// It is the host's own.
    pub(super) host: bool,
    pub(super) limits: Arc<Limits>,
    /// Its part of the places for connections.
    pub(super) share: Arc<Share>,
    pub(super) instance: Instance,
    pub(super) dialer: Dialer,
    /// Read by every connection, without a lock.
    pub(super) published: ArcSwap<Published>,
    pub(super) connections: Connections,
    /// One for each connection.
    pub(super) tasks: TaskTracker,
    pub(super) foreign_programs: Mutex<Vec<AttachedProgram>>,
    pub(super) listeners_revived: AtomicU64,
    pub(super) slots_restored: AtomicU64,
    /// One for each listener.
    pub(super) acceptors: TaskTracker,
    /// Where a rule can need the relay.
    pub(super) relay: Mutex<Relay>,
    /// Leads there, until steering ends.
    pub(super) anchor: Mutex<Option<Socket>>,
    /// Where a rule can leave clients without an answer.
    pub(super) black_hole: Mutex<BlackHole>,
    life: watch::Sender<Life>,
    log_limits: [RateLimit; NotDelivered::ALL.len()],
    log_limits_of_ends: [RateLimit; Ended::ALL.len()],
    went_down: mpsc::UnboundedSender<WentDown>,
}

/// Rules that can come into force.
#[derive(Debug)]
pub(super) struct Switch {
    published: Arc<Published>,
    prepared: Prepared,
}

/// What a namespace is made of.
pub(super) struct Parts {
    pub(super) target: Target,
    pub(super) cookie: NetnsCookie,
    pub(super) file: NetnsFile,
    pub(super) container: Option<ContainerId>,
    pub(super) host: bool,
    pub(super) limits: Arc<Limits>,
    pub(super) instance: Instance,
    pub(super) dialer: Dialer,
    pub(super) table: Arc<RuleTable>,
    pub(super) anchor: Socket,
    pub(super) foreign_programs: Vec<AttachedProgram>,
    pub(super) went_down: mpsc::UnboundedSender<WentDown>,
}

impl Namespace {
    pub(super) fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            target,
            cookie,
            file,
            container,
            host,
            limits,
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
            container,
            host,
            share: Share::new(&limits.places),
            limits,
            instance,
            dialer,
            published: ArcSwap::from_pointee(Published { current: table, previous: None }),
            connections: Connections::default(),
            tasks: TaskTracker::new(),
            foreign_programs: Mutex::new(foreign_programs),
            listeners_revived: AtomicU64::new(0),
            slots_restored: AtomicU64::new(0),
            acceptors: TaskTracker::new(),
            relay: Mutex::default(),
            anchor: Mutex::new(Some(anchor)),
            black_hole: Mutex::default(),
            life: watch::Sender::new(Life::Steering),
            log_limits: Default::default(),
            log_limits_of_ends: Default::default(),
            went_down,
        })
    }

    /// As they were found a moment ago.
    pub(super) fn set_foreign_programs(&self, found: Vec<AttachedProgram>) {
        *self.foreign_programs.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Whether new connections come to us.
    pub(super) fn is_steering(&self) -> bool {
        *self.life.borrow() == Life::Steering
    }

    /// Whether it has been let go of at once.
    pub(super) fn is_aborted(&self) -> bool {
        *self.life.borrow() == Life::Aborted
    }

    pub(super) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    pub(super) fn log_limit(&self, reason: NotDelivered) -> &RateLimit {
        &self.log_limits[reason as usize]
    }

    pub(super) fn log_limit_of_ends(&self, how: Ended) -> &RateLimit {
        &self.log_limits_of_ends[how as usize]
    }

    /// Makes other rules those in force, in the kernel and here. Blocks for an RCU grace period.
    pub(super) fn publish(self: &Arc<Self>, table: &Arc<RuleTable>) -> Result<(), InstanceError> {
        let before = self.published.load_full();
        self.publish_after(table, Some(Arc::clone(&before.current)), before)
    }

    /// Publishes the same rules with other marks: what was before them stays what was before.
    pub(super) fn publish_marks(self: &Arc<Self>, table: &Arc<RuleTable>) -> Result<(), InstanceError> {
        let before = self.published.load_full();
        self.publish_after(table, before.previous.clone(), before)
    }

    fn publish_after(
        self: &Arc<Self>,
        table: &Arc<RuleTable>,
        previous: Option<Arc<RuleTable>>,
        before: Arc<Published>,
    ) -> Result<(), InstanceError> {
        let published = self.instance.prepare(&table.rule_set, table.counters()).and_then(|prepared| {
            let after = Arc::new(Published { current: Arc::clone(table), previous });
            self.switch(Switch { published: after, prepared }, before)
        });
        self.settle_sockets();
        published.map(drop)
    }

    /// Makes all that other rules need to come into force.
    pub(super) fn prepare(&self, table: Arc<RuleTable>) -> Result<Switch, InstanceError> {
        let prepared = self.instance.prepare(&table.rule_set, table.counters())?;
        let previous = Some(Arc::clone(&self.published.load().current));
        Ok(Switch { published: Arc::new(Published { current: table, previous }), prepared })
    }

    /// Makes the rules those in force that were prepared last, in the kernel and here. Blocks for an RCU grace period. Gives
    /// the way back. What no rule leads to any more stays until [`Self::settle_sockets`].
    pub(super) fn switch(
        &self,
        Switch { published, prepared }: Switch,
        before: Arc<Published>,
    ) -> Result<Switch, InstanceError> {
        // Ours first: a connection that the kernel steers by the new rules is attributed by them, and one that
        // it has steered by the old ones is found there when the new ones do not take it.
        self.published.store(published);
        match self.instance.switch(prepared) {
            Ok(prepared) => Ok(Switch { published: before, prepared }),
            Err(error) => {
                self.published.store(before);
                Err(error)
            }
        }
    }

    /// Goes back. What has been steered meanwhile is found under the rules that are left.
    pub(super) fn switch_back(&self, Switch { published, prepared }: Switch) -> Result<(), InstanceError> {
        let left = self.published.load_full();
        let (current, previous) = (Arc::clone(&published.current), Some(Arc::clone(&left.current)));
        let published = Arc::new(Published { current, previous });
        self.switch(Switch { published, prepared }, left).map(drop)
    }

    /// Stops steering at once. [`Self::stopped`] waits for what that entails.
    pub(super) fn stop_steering(&self, life: Life) {
        self.instance.detach();
        self.life.send_if_modified(|now| {
            let forward = *now < life;
            *now = life.max(*now);
            forward
        });
        self.dialer.factory.clear();
        self.share.release();
        self.acceptors.close();
    }

    /// Lets go of the listeners when what is in their queues has been accepted.
    pub(super) async fn stopped(&self) {
        self.acceptors.wait().await;
        self.close_sockets();
    }

    /// Stops steering. Connections go on.
    pub(super) async fn detach(&self) {
        self.stop_steering(Life::Detached);
        self.stopped().await;
    }

    /// Lets go of everything at once: connections are reset.
    pub(super) async fn abort(&self) {
        self.stop_steering(Life::Aborted);
        self.stopped().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A dial of this rule has failed for a reason that says something about its destination.
    pub(super) fn dial_failed(self: &Arc<Self>, rule: &Arc<RuleState>, reason: NotDelivered) {
        let of_destination = matches!(
            reason,
            NotDelivered::ConnectRefused
                | NotDelivered::ConnectTimeout
                | NotDelivered::Unreachable
                | NotDelivered::Unresolved
                | NotDelivered::NamespaceGone
                | NotDelivered::OwnSocket
                | NotDelivered::ConnectError
        );
        if of_destination && rule.dial_failed() {
            self.tell_down(rule);
        }
    }

    /// Takes down the rules whose destination lies in a namespace that is gone.
    pub(super) fn take_down_gone(self: &Arc<Self>) {
        for rule in self.published.load().current.rules() {
            if rule.whereabouts.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.is_gone())
                && rule.take_down()
            {
                self.tell_down(rule);
            }
        }
    }

    /// Has a rule that is down tried until it is up.
    pub(super) fn tell_down(self: &Arc<Self>, rule: &Arc<RuleState>) {
        // Without a receiver the daemon is ending.
        drop(self.went_down.send(WentDown { netns: Arc::clone(self), rule: Arc::clone(rule) }));
    }

    /// Counts a slot or a listener that was mended.
    pub(super) fn count_mended(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    /// An fd of the namespace, for as long as it is used: never kept.
    pub(super) fn open(&self) -> io::Result<std::os::fd::OwnedFd> {
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let anchor = anchor.as_ref().ok_or_else(|| io::Error::other("not steered any more"))?;
        crate::sys::namespace::netns_of(anchor.as_fd())
    }
}
