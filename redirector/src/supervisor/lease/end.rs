//! How a lease ends: its process has ended, or its namespace has died.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use redirector_ebpf::{PROTOCOL_TCP, slot};
use tokio::io::Interest;

use super::{
    Lease, LeasedSocket,
    holders::{Holder, held, holders},
};
use crate::{
    config::Span,
    netns::Family,
    supervisor::{Supervisor, namespace::Namespace},
    sys::{self, namespace::pidfd_send_signal},
};

/// Between two looks at who holds the listeners of a dead namespace, the first and the longest. Nothing tells when a
/// file is closed elsewhere.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Between two looks at who still holds listeners of leases that have ended.
const SWEEP: Duration = Duration::from_secs(10);

/// Leases that have ended and whose listeners somebody still holds, in one namespace. One more, and the first is
/// forgotten: it gets nothing, but who holds it is not ended when the namespace dies.
const MAX_ENDED: usize = 64;

/// Waits until the process that a pidfd means has ended.
pub(super) async fn wait_for_end(pidfd: io::Result<OwnedFd>) {
    let pidfd = pidfd.and_then(|pidfd| sys::async_fd(pidfd, Interest::READABLE));
    let ended = match &pidfd {
        Ok(pidfd) => pidfd.readable().await.map(drop),
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
        netns.bound_ended_leases();
        self.leases_ended.notify_one();
        if !lease.is_in_force(netns) {
            return;
        }
        let rule = &lease.rule.rule.name;
        if table.get(&netns.cookie).is_some_and(|one| Arc::ptr_eq(one, netns)) {
            if let Err(error) = self.remove_rules(&mut table, netns, std::slice::from_ref(rule)).await {
                tracing::error!(netns = %netns.target, %rule, %error, "end the lease; the rule's on_unavailable decides");
            } else {
                tracing::info!(netns = %netns.target, %rule, "the lease has ended");
            }
        }
        // Who shares the receiver's listeners may still hold them: they must not get a later consumer's traffic.
        for family in [Family::Ipv4, Family::Ipv6] {
            netns.instance.clear_listener(slot(lease.rule.consumer, PROTOCOL_TCP, family.bit()));
        }
    }

    /// Forgets leases that have ended, when nobody holds their listeners any more. Those that somebody holds keep
    /// the namespace, so they are wanted when it dies. Runs for as long as the daemon.
    pub(in crate::supervisor) async fn sweep_leases(self: Arc<Self>) {
        loop {
            let left = self.sweep_once().await;
            let ended = self.leases_ended.notified();
            if left {
                drop(tokio::time::timeout(SWEEP, ended).await);
            } else {
                ended.await;
            }
        }
    }

    /// Whether some are left. One look for all of them, and not under the lock.
    async fn sweep_once(&self) -> bool {
        let mut namespaces: Vec<_> = self.table.lock().await.values().cloned().collect();
        namespaces.extend(self.draining.all());
        let ended: Vec<_> = namespaces.iter().flat_map(|netns| netns.ended_leases()).collect();
        let sockets: Vec<LeasedSocket> = ended.iter().flat_map(|lease| lease.listeners()).collect();
        let held = tokio::task::spawn_blocking(move || held(&sockets)).await.unwrap_or_default();
        let mut left = false;
        for lease in ended {
            if lease.listeners().iter().any(|one| held.contains(&one.cookie)) {
                left = true;
            } else {
                namespaces.iter().for_each(|netns| netns.forget_lease(&lease));
            }
        }
        left
    }
}

impl Namespace {
    fn ended_leases(&self) -> Vec<Arc<Lease>> {
        let leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.iter().filter(|lease| lease.has_ended()).cloned().collect()
    }

    fn forget_lease(&self, lease: &Arc<Lease>) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        leases.retain(|one| !Arc::ptr_eq(one, lease));
    }

    fn bound_ended_leases(&self) {
        let ended = self.ended_leases();
        for lease in ended.iter().rev().skip(MAX_ENDED) {
            tracing::warn!(netns = %self.target, rule = %lease.rule.rule.name, "too many programs hold listeners whose lease has ended; the first is forgotten");
            self.forget_lease(lease);
        }
    }
}

impl Lease {
    /// Whether its rule decides about packets. One that has taken its name or its place since is another.
    pub(super) fn is_in_force(&self, netns: &Namespace) -> bool {
        netns.published.load().current.rules().iter().any(|one| Arc::ptr_eq(one, &self.rule))
    }

    async fn holders(&self) -> Vec<Holder> {
        let listeners = self.listeners();
        let found = tokio::task::spawn_blocking(move || holders(&listeners).collect()).await;
        found.unwrap_or_else(|error| {
            tracing::error!(%error, "look for the holders of listeners");
            Vec::new()
        })
    }

    /// The namespace has died: what holds its listeners must not keep it. They are shut down, and what `exec`
    /// started is ended, workers that outlive it included.
    pub(in crate::supervisor) async fn revoke(self: &Arc<Self>) {
        let holders = self.holders().await;
        if self.kill_after.is_some() {
            // Before its listeners fail, which a program may take for a reason to end by itself.
            self.signal(&holders, Signal::SIGTERM);
        }
        holders.iter().for_each(Holder::shut_down);
        // Or this process would be one for as long.
        drop(holders);
        let Some(Span(kill_after)) = self.kill_after else { return };
        let lease = Arc::clone(self);
        tokio::spawn(async move {
            if tokio::time::timeout(kill_after, lease.released()).await.is_err() {
                tracing::warn!("holders of a dead namespace's listeners do not end; SIGKILL");
                lease.signal(&lease.holders().await, Signal::SIGKILL);
            }
        });
    }

    /// Waits until the process has ended and nobody holds its listeners.
    async fn released(&self) {
        wait_for_end(self.pidfd.try_clone()).await;
        let mut pause = LOOK_AGAIN.0;
        while !self.holders().await.is_empty() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }

    fn signal(&self, holders: &[Holder], signal: Signal) {
        // It has ended when this fails.
        drop(pidfd_send_signal(&self.pidfd, signal as i32));
        holders.iter().for_each(|holder| holder.signal(self.user, signal));
    }
}
