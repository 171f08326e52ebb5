//! When a connection last made progress.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::Stream;

/// Knows when bytes were moved, or acknowledged, last.
#[derive(Debug)]
pub struct Clock {
    begin: Instant,
    /// Milliseconds after `begin`.
    last: AtomicU64,
    /// As it was at the last look.
    unacknowledged: AtomicU32,
}

impl Clock {
    /// Begins with progress.
    #[must_use]
    pub fn start() -> Self {
        Self { begin: Instant::now(), last: AtomicU64::new(0), unacknowledged: AtomicU32::new(0) }
    }

    /// With its last progress so long ago.
    #[cfg(test)]
    pub(crate) fn aged(age: Duration) -> Self {
        let begin = Instant::now().checked_sub(age).expect("the machine has run for longer");
        Self { begin, ..Self::start() }
    }

    /// There is progress now.
    pub fn touch(&self) {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// When there was progress last.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// For how long there was no progress.
    #[must_use]
    pub fn idle(&self) -> Duration {
        self.last().elapsed()
    }

    /// Looks whether one of the streams' peers has acknowledged something since the last look.
    pub fn look(&self, one: &Stream, other: &Stream) {
        let now = one.unacknowledged() + other.unacknowledged();
        if self.unacknowledged.swap(now, Ordering::Relaxed) != now {
            self.touch();
        }
    }

    /// Ready when there was no progress for `limit`: neither bytes that we moved, nor acknowledgements of those
    /// that we moved before. Zero is no limit. One timer, set anew only when it fires.
    pub(super) async fn idle_for(&self, limit: Duration, one: &Stream, other: &Stream) {
        if limit.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let until = self.last() + limit;
            if until > Instant::now() {
                tokio::time::sleep_until(until).await;
                continue;
            }
            self.look(one, other);
            if self.idle() >= limit {
                return;
            }
        }
    }
}
