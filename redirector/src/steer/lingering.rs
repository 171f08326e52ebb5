//! Sockets whose connection has ended and whose peer has not acknowledged all: what they may hold in all.
//!
//! A peer that lives is waited for however slowly it reads, so what bounds memory is not time but the bytes that wait.
//! Where they are too many, the socket goes that has stood still longest. A socket takes memory itself, so each counts for some
//! kilobytes at least, which bounds their number too.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{sync::Notify, time::Instant};

use crate::netns::NetnsCookie;

/// Unacknowledged bytes of all namespaces.
const MOST: u64 = 256 << 20;

/// The part of them that one namespace can have.
const SHARE: u64 = 4;

/// A socket that waits counts for so many bytes at least: 16,384 of one namespace, 65,536 of all.
const LEAST: u64 = 4 << 10;

/// All that wait. Its lock is taken for a socket that is not acknowledged at the first look, and when its peer has made progress.
#[derive(Debug)]
pub(crate) struct Lingering {
    most: u64,
    least: u64,
    next: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    bytes: u64,
    of: HashMap<NetnsCookie, Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: u64,
    /// By when they made progress last.
    sockets: BTreeMap<Key, One>,
}

#[derive(Debug)]
struct One {
    bytes: u64,
    crowded_out: Arc<Notify>,
}

type Key = (Instant, u64);

/// One of those that wait, until it is dropped.
#[derive(Debug)]
pub(crate) struct LingeringSocket<'a> {
    all: &'a Lingering,
    netns: NetnsCookie,
    key: Key,
    crowded_out: Arc<Notify>,
}

impl Default for Lingering {
    fn default() -> Self {
        Self { most: MOST, least: LEAST, next: AtomicU64::new(0), table: Mutex::default() }
    }
}

impl Lingering {
    /// One more, whose peer has not acknowledged so many bytes and made progress last at `since`.
    pub(crate) fn enter(&self, netns: NetnsCookie, bytes: u64, since: Instant) -> LingeringSocket<'_> {
        let key = (since, self.next.fetch_add(1, Ordering::Relaxed));
        let crowded_out = Arc::new(Notify::new());
        let one = One { bytes: bytes.max(self.least), crowded_out: Arc::clone(&crowded_out) };
        let mut table = self.lock();
        table.insert(netns, key, one);
        table.shed(self.most);
        drop(table);
        LingeringSocket { all: self, netns, key, crowded_out }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LingeringSocket<'_> {
    /// Its peer has acknowledged some just now: so many bytes are left.
    pub(crate) fn progressed(&mut self, bytes: u64) {
        let mut table = self.all.lock();
        if let Some(one) = table.remove(self.netns, self.key) {
            self.key.0 = Instant::now();
            table.insert(self.netns, self.key, One { bytes: bytes.max(self.all.least), ..one });
        }
    }

    /// Ready when it has to go, because there is more than is allowed and it has stood still longest.
    pub(crate) async fn crowded_out(&self) {
        self.crowded_out.notified().await;
    }
}

impl Drop for LingeringSocket<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(self.netns, self.key);
    }
}

impl Table {
    fn insert(&mut self, netns: NetnsCookie, key: Key, one: One) {
        let waiting = self.of.entry(netns).or_default();
        self.bytes += one.bytes;
        waiting.bytes += one.bytes;
        waiting.sockets.insert(key, one);
    }

    fn remove(&mut self, netns: NetnsCookie, key: Key) -> Option<One> {
        let waiting = self.of.get_mut(&netns)?;
        let one = waiting.sockets.remove(&key)?;
        self.bytes -= one.bytes;
        waiting.bytes -= one.bytes;
        if waiting.sockets.is_empty() {
            self.of.remove(&netns);
        }
        Some(one)
    }

    fn shed(&mut self, most: u64) {
        let first = |waiting: &Waiting| waiting.sockets.first_key_value().map(|(key, _)| *key);
        loop {
            let crowded = self.of.iter().filter(|(_, waiting)| waiting.bytes > most / SHARE);
            let oldest = |(netns, waiting): (&NetnsCookie, &Waiting)| Some((first(waiting)?, *netns));
            let mut victim = crowded.filter_map(oldest).min();
            if victim.is_none() && self.bytes > most {
                victim = self.of.iter().filter_map(oldest).min();
            }
            let Some((key, netns)) = victim else { return };
            if let Some(one) = self.remove(netns, key) {
                one.crowded_out.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;

    const A: NetnsCookie = NetnsCookie(1);
    const B: NetnsCookie = NetnsCookie(2);

    fn limited(most: u64) -> Lingering {
        Lingering { most, least: 0, ..Lingering::default() }
    }

    fn is_out(one: &LingeringSocket<'_>) -> bool {
        one.crowded_out().now_or_never().is_some()
    }

    #[tokio::test]
    async fn over_the_share_of_a_namespace_its_own_goes_that_has_stood_still_longest() {
        let (all, now) = (limited(400), Instant::now());
        let other = all.enter(B, 90, now - Duration::from_secs(9));
        let [young, old] = [1, 5].map(|age| all.enter(A, 50, now - Duration::from_secs(age)));
        assert_eq!([&other, &young, &old].map(is_out), [false; 3], "as much as is allowed");
        let last = all.enter(A, 1, now);
        assert_eq!([&other, &young, &old, &last].map(is_out), [false, false, true, false]);
    }

    #[tokio::test]
    async fn over_the_whole_the_one_goes_that_has_stood_still_longest_of_all() {
        let (all, now) = (limited(400), Instant::now());
        let each: Vec<_> = (0..4)
            .map(|netns| all.enter(NetnsCookie(netns), 100, now - Duration::from_secs(netns)))
            .collect();
        let last = all.enter(NetnsCookie(7), 100, now);
        assert_eq!(each.iter().map(is_out).collect::<Vec<_>>(), [false, false, false, true]);
        assert!(!is_out(&last));
    }

    #[tokio::test]
    async fn who_makes_progress_is_young_again_and_holds_less() {
        let (all, now) = (limited(400), Instant::now());
        let mut slow = all.enter(A, 60, now - Duration::from_secs(5));
        let still = all.enter(A, 40, now - Duration::from_secs(1));
        slow.progressed(30);
        let more = all.enter(A, 30, Instant::now());
        assert_eq!([&slow, &still, &more].map(is_out), [false; 3]);
        let too_much = all.enter(A, 1, Instant::now());
        assert_eq!([&slow, &still, &more, &too_much].map(is_out), [false, true, false, false]);
    }

    #[tokio::test]
    async fn their_number_is_bounded_too_however_little_each_has_to_say() {
        let (all, now) = (Lingering::default(), Instant::now());
        let mut first = all.enter(A, 1, now - Duration::from_secs(1));
        first.progressed(1);
        let of_a: Vec<_> = (1..16_384).map(|_| all.enter(A, 1, now)).collect();
        assert!(!is_out(&first) && !of_a.iter().any(is_out));
        let one_more = all.enter(A, 1, Instant::now());
        assert_eq!(of_a.iter().filter(|one| is_out(one)).count(), 1);
        assert!(!is_out(&first) && !is_out(&one_more));
        let others = (2..5).flat_map(|netns| std::iter::repeat_n(NetnsCookie(netns), 16_384));
        let others: Vec<_> = others.map(|netns| all.enter(netns, 4096, Instant::now())).collect();
        assert_eq!(of_a.iter().chain(&others).filter(|one| is_out(one)).count(), 0, "of four namespaces");
        let last = all.enter(NetnsCookie(9), 1, Instant::now());
        assert_eq!(of_a.iter().filter(|one| is_out(one)).count(), 1, "65,536 of all");
        assert!(!is_out(&last));
    }

    #[tokio::test]
    async fn nothing_is_left_of_those_that_are_dropped() {
        let all = limited(4);
        drop(all.enter(A, 1, Instant::now()));
        let mut out = all.enter(A, 2, Instant::now());
        assert!(is_out(&out), "more than its namespace's share");
        out.progressed(1);
        drop(out);
        let table = all.lock();
        assert_eq!((table.bytes, table.of.len()), (0, 0));
    }
}
