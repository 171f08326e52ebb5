//! How a lease ends: its process has ended, or its namespace has died.

use std::{
    collections::HashSet,
    io,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use redirector_ebpf::{PROTOCOL_TCP, slot};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Lease, LeasedSocket,
    holders::{Found, Order, Seen, held, shut_down},
    looks::Looks,
    task::Process,
};
use crate::{
    config::Span,
    netns::Family,
    supervisor::{Supervisor, Table, namespace::Namespace},
    sys::{self, namespace::pidfd_send_signal},
};

/// Between two looks at who holds the listeners of a dead namespace, the first and the longest. Nothing tells when a
/// file is closed elsewhere.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// When a pause between two such looks would be as long as this, the holders that were not found are left alone.
const GIVE_UP: Duration = Duration::from_secs(600);

/// Between two looks at who still holds listeners of leases that have ended.
const SWEEP: Duration = Duration::from_secs(10);

/// The same when the look before did not see everybody.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// Between two tries to take back a rule whose lease has ended, the first and the longest: what stands in the way may last.
const TAKE_BACK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// When it is time to try again to take back what could not be taken back.
struct NextTry {
    at: Instant,
    pause: Duration,
}

/// What a look at leases that have ended has left.
enum Left {
    Nothing,
    /// Listeners that somebody holds.
    Held,
    /// Listeners of which it is not known whether somebody holds them.
    Unseen,
}

/// Leases that have ended and whose listeners somebody still holds, in one namespace. One more, and the first is
/// forgotten: it gets nothing, but who holds it is not ended when the namespace dies.
const MAX_ENDED: usize = 64;

/// What becomes readable when the process that a pidfd means has ended.
///
/// # Errors
///
/// As fcntl(2) `F_DUPFD_CLOEXEC`, epoll_ctl(2).
pub(super) fn watch(pidfd: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    sys::async_fd(pidfd.try_clone()?, Interest::READABLE)
}

/// Waits until that process has ended.
pub(super) async fn wait_for_end(watched: io::Result<AsyncFd<OwnedFd>>) {
    let ended = match &watched {
        Ok(watched) => watched.readable().await.map(drop),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    };
    if let Err(error) = ended {
        // Without it the lease would last for ever.
        tracing::error!(%error, "watch the receiver of listeners; its lease ends now");
    }
}

impl Supervisor {
    /// Takes a lease's rule away; steering ends when it was the last.
    pub(super) async fn end_lease(&self, netns: &Arc<Namespace>, lease: &Arc<Lease>) {
        let mut table = self.table.lock().await;
        lease.ended.store(true, Ordering::Relaxed);
        self.bound_ended_leases(netns);
        self.leases_ended.notify_one();
        self.take_back(&mut table, netns, lease).await;
    }

    /// Takes the rule of a lease that has ended out of force, and empties its slots. Whether the rule is out.
    async fn take_back(&self, table: &mut Table, netns: &Arc<Namespace>, lease: &Lease) -> bool {
        if !lease.is_in_force(netns) {
            return true;
        }
        let rule = &lease.rule.rule.name;
        let mut is_out = true;
        if table.get(&netns.cookie).is_some_and(|one| Arc::ptr_eq(one, netns)) {
            if let Err(error) = self.remove_rules(table, netns, std::slice::from_ref(rule)).await {
                tracing::error!(
                    netns = %netns.target, %rule, %error,
                    "end the lease; the rule's on_unavailable decides until it can be taken back"
                );
                is_out = false;
            } else {
                tracing::info!(netns = %netns.target, %rule, "the lease has ended");
            }
        }
        // Who shares the receiver's listeners may still hold them: they must not get a later consumer's traffic.
        for family in [Family::Ipv4, Family::Ipv6] {
            netns.instance.clear_listener(slot(lease.rule.consumer, PROTOCOL_TCP, family.bit()));
        }
        is_out
    }

    /// Tries again to take back the rules of leases that have ended. `None`: there are none.
    async fn take_back_again(&self, before: Option<NextTry>) -> Option<NextTry> {
        if before.as_ref().is_some_and(|next| next.at > Instant::now()) {
            return before;
        }
        let ended = self.leases.ended();
        if ended.is_empty() {
            return None;
        }
        let mut table = self.table.lock().await;
        let mut is_left = false;
        for (netns, lease) in &ended {
            is_left |= !self.take_back(&mut table, netns, lease).await;
        }
        let pause = before.map_or(TAKE_BACK.0, |before| (before.pause * 2).min(TAKE_BACK.1));
        is_left.then(|| NextTry { at: Instant::now() + pause, pause })
    }

    /// Forgets leases that have ended, when nobody holds their listeners any more. Those that somebody holds keep
    /// the namespace, so they are wanted when it dies. Runs for as long as the daemon.
    pub(in crate::supervisor) async fn sweep_leases(self: Arc<Self>) {
        let (looks, mut next_try) = (Looks::default(), None);
        loop {
            next_try = self.take_back_again(next_try).await;
            looks.turn().await;
            let left = self.sweep_once(&looks).await;
            let ended = self.leases_ended.notified();
            let look_again = match left {
                Left::Nothing => None,
                Left::Held => Some(SWEEP),
                Left::Unseen => Some(SWEEP_AGAIN),
            };
            let try_again = next_try.as_ref().map(|next| next.at.saturating_duration_since(Instant::now()));
            match look_again.into_iter().chain(try_again).min() {
                None => ended.await,
                Some(pause) => drop(tokio::time::timeout(pause, ended).await),
            }
        }
    }

    /// One look for all of them, and not under the lock.
    async fn sweep_once(&self, looks: &Looks) -> Left {
        let ended = self.leases.ended();
        let sockets: Vec<LeasedSocket> = ended.iter().flat_map(|(_, lease)| lease.listeners()).collect();
        let asked: HashSet<u64> = sockets.iter().map(|one| one.cookie).collect();
        if sockets.is_empty() {
            ended.iter().for_each(|(netns, lease)| self.leases.forget(netns, lease));
            return Left::Nothing;
        }
        let (held, seen) = match looks.look(&[], move |aside, _| held(aside, &sockets)).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "look for holders of listeners whose lease has ended");
                return Left::Unseen;
            }
        };
        let mut left = Left::Nothing;
        for (netns, lease) in ended {
            let listeners = lease.listeners();
            if listeners.iter().any(|one| held.contains(&one.cookie) || !asked.contains(&one.cookie)) {
                left = Left::Held;
            } else if seen == Seen::All {
                self.leases.forget(&netns, &lease);
            }
        }
        if seen == Seen::Part { Left::Unseen } else { left }
    }

    fn bound_ended_leases(&self, netns: &Namespace) {
        for lease in self.leases.ended_in(netns).iter().rev().skip(MAX_ENDED) {
            tracing::warn!(netns = %netns.target, rule = %lease.rule.rule.name, "too many programs hold listeners whose lease has ended; the first is forgotten");
            self.leases.forget(netns, lease);
        }
    }
}

impl Lease {
    /// Whether its rule decides about packets. One that has taken its name or its place since is another.
    pub(super) fn is_in_force(&self, netns: &Namespace) -> bool {
        netns.published.load().current.rules().iter().any(|one| Arc::ptr_eq(one, &self.rule))
    }

    /// The namespace has died: what holds its listeners must not keep it. They are shut down, and what `exec`
    /// started is ended, workers that outlive it included. Goes on by itself after the first look, which may have
    /// seen a part, and after which processes may have been forked.
    pub(in crate::supervisor) async fn revoke(self: &Arc<Self>) {
        let order = self.order(Signal::SIGTERM);
        // Before its listeners fail, which a program may take for a reason to end by itself.
        self.give(order.as_deref());
        let first = self.shut_down(order.as_ref()).await;
        let lease = Arc::clone(self);
        tokio::spawn(async move { lease.end_holders(first, order).await });
    }

    /// What comes after the first look.
    async fn end_holders(&self, first: Found, order: Option<Arc<Order>>) {
        let Some(Span(kill_after)) = self.kill_after else {
            if !first.is_enough(None) {
                self.look_on(None, GIVE_UP).await;
            }
            return;
        };
        let released = async {
            tokio::join!(wait_for_end(watch(&self.pidfd)), self.look_on(order.as_ref(), LOOK_AGAIN.1));
        };
        if tokio::time::timeout(kill_after, released).await.is_ok() {
            return;
        }
        tracing::warn!("holders of a dead namespace's listeners do not end; SIGKILL");
        let order = self.order(Signal::SIGKILL);
        self.give(order.as_deref());
        if !self.shut_down(order.as_ref()).await.is_enough(order.as_deref()) {
            self.look_on(order.as_ref(), GIVE_UP).await;
        }
    }

    /// Looks until nothing is left to be done, with pauses up to this one; gives up when they would be as long as
    /// [`GIVE_UP`].
    async fn look_on(&self, order: Option<&Arc<Order>>, longest: Duration) {
        let mut pause = LOOK_AGAIN.0;
        while pause < GIVE_UP {
            tokio::time::sleep(pause).await;
            self.looks.turn().await;
            if self.shut_down(order).await.is_enough(order.map(AsRef::as_ref)) {
                return;
            }
            pause = (pause * 2).min(longest);
        }
    }

    /// To end, for who holds the listeners. Only what `exec` has started is told.
    fn order(&self, signal: Signal) -> Option<Arc<Order>> {
        self.kill_after.map(|_| Arc::new(Order::new(signal, self.user)))
    }

    /// To the process itself.
    fn give(&self, order: Option<&Order>) {
        if let Some(order) = order {
            // Before: while it can be sent a signal, its number is nobody else's.
            let process = self.pid.and_then(|pid| Process::at(pid).ok());
            // It has ended when this fails.
            if pidfd_send_signal(&self.pidfd, order.signal as i32).is_ok() {
                process.map(|process| order.is_new_to(process));
            }
        }
    }

    /// Tells other holders of its listeners, each once, and shuts these down.
    async fn shut_down(&self, order: Option<&Arc<Order>>) -> Found {
        let (sockets, order) = (self.listeners(), order.cloned());
        let looked = self.looks.look(&[], move |aside, _| shut_down(aside, &sockets, order.as_deref())).await;
        looked.unwrap_or_else(|error| {
            tracing::error!(%error, "look for the holders of listeners");
            Found { seen: Seen::Part, is_held: false }
        })
    }
}
