//! How a lease ends: its process has ended, or its namespace has died.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use redirector_ebpf::slot;
use tokio::io::Interest;

use super::{
    Lease,
    holders::{Holder, holders},
};
use crate::{
    config::Span,
    netns::Family,
    supervisor::{Supervisor, namespace::Namespace},
    sys::{self, namespace::pidfd_send_signal},
};

/// Between two looks at who holds the listeners of a dead namespace. Nothing tells when a file is closed elsewhere.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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
        lease.ended.store(true, Ordering::Relaxed);
        netns.forget_ended_leases().await;
        let mut table = self.table.lock().await;
        if !lease.is_in_force(netns) {
            return;
        }
        let rule = &lease.rule.rule.name;
        if table.get(&netns.cookie).is_some_and(|one| Arc::ptr_eq(one, netns)) {
            if let Err(error) = self.remove_rules(&mut table, netns, std::slice::from_ref(rule)).await {
                tracing::error!(netns = %netns.target, %rule, %error, "end the lease");
                return;
            }
            tracing::info!(netns = %netns.target, %rule, "the lease has ended");
        }
        // Who shares the receiver's listeners may still hold them: they must not get a later consumer's traffic.
        for family in [Family::Ipv4, Family::Ipv6] {
            netns.instance.clear_listener(slot(lease.rule.consumer, family.bit()));
        }
    }
}

impl Namespace {
    /// Forgets the leases whose process has ended and whose listeners nobody holds any more. Those that somebody
    /// holds still keep the namespace, so they are wanted when it dies.
    pub(in crate::supervisor) async fn forget_ended_leases(&self) {
        let leases = || self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        let ended: Vec<_> = leases().iter().filter(|lease| lease.has_ended()).cloned().collect();
        for lease in ended {
            if lease.holders().await.is_empty() {
                leases().retain(|one| !Arc::ptr_eq(one, &lease));
            }
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
        let found = tokio::task::spawn_blocking(move || holders(&listeners)).await;
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
        while !self.holders().await.is_empty() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn signal(&self, holders: &[Holder], signal: Signal) {
        // It has ended when this fails.
        drop(pidfd_send_signal(&self.pidfd, signal as i32));
        holders.iter().for_each(|holder| holder.signal(signal));
    }
}
