//! How a lease ends: its process has ended, or its namespace has died.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    holders::{Coverage, Order, ShutDown, shut_down},
    leased::Lease,
    task::Process,
};
use crate::{
    config::Span,
    sys::{self, namespace::pidfd_send_signal},
};

/// Between two looks at who holds the listeners of a dead namespace, the first and the longest. Nothing tells when a
/// file is closed elsewhere.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// When a pause between two such looks would be as long as this, the holders that were not found are left alone.
const GIVE_UP: Duration = Duration::from_secs(600);

/// What becomes readable when the process that a pidfd means has ended.
///
/// # Errors
///
/// As fcntl(2) `F_DUPFD_CLOEXEC`, epoll_ctl(2).
pub(crate) fn watch(pidfd: &OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    sys::async_fd(pidfd.try_clone()?, Interest::READABLE)
}

/// Waits until that process has ended.
pub(crate) async fn wait_for_end(watched: io::Result<AsyncFd<OwnedFd>>) {
    let ended = match &watched {
        Ok(watched) => watched.readable().await.map(drop),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    };
    if let Err(error) = ended {
        // Without it the lease would last for ever.
        tracing::error!(%error, "watch the receiver of listeners; its lease ends now");
    }
}

impl Lease {
    /// The namespace has died: what holds its listeners must not keep it. They are shut down, and what `exec`
    /// started is ended, workers that outlive it included. Goes on by itself after the first look, which may have
    /// seen a part, and after which processes may have been forked.
    pub(crate) async fn revoke(self: &Arc<Self>) {
        let order = self.order(Signal::SIGTERM);
        // Before its listeners fail, which a program may take for a reason to end by itself.
        self.give(order.as_deref());
        let first = self.shut_down(order.as_ref()).await;
        let lease = Arc::clone(self);
        tokio::spawn(async move { lease.end_holders(first, order).await });
    }

    /// What comes after the first look.
    async fn end_holders(&self, first: ShutDown, order: Option<Arc<Order>>) {
        let Some(Span(kill_after)) = self.kill_after else {
            self.tell_no_more();
            if !first.is_enough(None) {
                self.look_on(None, GIVE_UP).await;
            }
            return;
        };
        let released = async {
            tokio::join!(wait_for_end(watch(&self.pidfd)), self.look_on(order.as_ref(), LOOK_AGAIN.1));
        };
        if tokio::time::timeout(kill_after, released).await.is_ok() {
            self.tell_no_more();
            return;
        }
        tracing::warn!("holders of a dead namespace's listeners do not end; SIGKILL");
        let order = self.order(Signal::SIGKILL);
        self.give(order.as_deref());
        let last = self.shut_down(order.as_ref()).await;
        // Who waits for the end of the lease does not wait for those that are not ended.
        self.tell_no_more();
        if !last.is_enough(order.as_deref()) {
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
    async fn shut_down(&self, order: Option<&Arc<Order>>) -> ShutDown {
        let (sockets, order) = (self.listeners(), order.cloned());
        let looked = self.looks.look(&[], move |aside, _| shut_down(aside, &sockets, order.as_deref())).await;
        looked.unwrap_or_else(|error| {
            tracing::error!(%error, "look for the holders of listeners");
            ShutDown { seen: Coverage::Part, is_held: false }
        })
    }
}
