//! How often somebody may make the daemon look at processes, and what happens to a look that does not end.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::budget::time_of_thread;
use crate::sys::{
    aside::{self, Aside, Running, Threads},
    blocking::blocking,
};

/// Of all time, how much is a program's: one part in so many.
const SHARE: u32 = 10;

/// Work that a program can have at once, before it waits for its share: servers make many listeners when they start.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What each look is taken to cost at least.
const LEAST: Duration = Duration::from_millis(1);

/// The longest wait for the end of a look. It is bounded itself; a program can stop it, for example by a file of a
/// file system that does not answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Threads of looks that have not ended. One more look, and it is refused.
const LEFT: usize = 8;

/// The looks of one lease.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Until when its share is used up.
    paid_until: Mutex<Option<Instant>>,
    threads: Threads,
}

impl Looks {
    /// Waits until there is some of its share left.
    pub(crate) async fn turn(&self) {
        loop {
            let ahead = self.ahead();
            if ahead <= AT_ONCE * SHARE {
                return;
            }
            tokio::time::sleep(ahead - AT_ONCE * SHARE).await;
        }
    }

    fn ahead(&self) -> Duration {
        let paid_until = *self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        paid_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Notes what a look has used of a processor.
    pub(super) fn pay(&self, cost: Duration) {
        let now = Instant::now();
        let mut paid_until = self.paid_until.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid_until.map_or(now, |until| until.max(now));
        *paid_until = Some(from + cost.max(LEAST) * SHARE);
    }

    /// Closes a file that the program has, too.
    pub(crate) fn let_go(&self, file: OwnedFd) {
        if let Some(thread) = aside::let_go(vec![file]) {
            self.threads.add(thread);
        }
    }

    /// Waits until the daemon has no duplicate any more, but not for long: the program may see to that.
    pub(crate) async fn settle(&self) {
        for _ in 0..20 {
            if self.threads.left() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Looks at files of other processes: see [`aside::run`].
    ///
    /// # Errors
    ///
    /// As there; when it takes too long, or too many have not ended.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        files: &[BorrowedFd<'_>],
        work: impl FnOnce(&Aside, &[OwnedFd]) -> T + Send + 'static,
    ) -> io::Result<T> {
        if self.threads.left() >= LEFT {
            return Err(io::Error::other("too many looks at the program have not ended"));
        }
        let Running { thread, result } = aside::run(files, move |aside, files| {
            let found = work(aside, files);
            (found, time_of_thread())
        })?;
        self.threads.add(thread);
        let ended = blocking(move || result.recv_timeout(LIMIT)).await?;
        self.pay(ended.as_ref().map_or(LIMIT, |(_, cost)| *cost));
        ended.map(|(found, _)| found).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_a_look_costs_is_paid_for() {
        let looks = Looks::default();
        looks.turn().await;
        looks.pay(AT_ONCE);
        assert!(looks.ahead() <= AT_ONCE * SHARE);
        looks.turn().await;
        looks.pay(LEAST);
        assert!(looks.ahead() > AT_ONCE * SHARE);
    }

    #[tokio::test]
    async fn looks_that_do_not_end_are_bounded() {
        let looks = Looks::default();
        let mut ends = Vec::new();
        for _ in 0..LEFT {
            let (end, ended) = mpsc::channel::<()>();
            ends.push(end);
            let running = aside::run(&[], move |_, _| ended.recv().is_err()).unwrap();
            looks.threads.add(running.thread);
        }
        assert!(looks.look(&[], |_, _| ()).await.is_err());
        drop(ends);
        while looks.look(&[], |_, _| ()).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}
