//! The connections of one namespace that can make room for new ones when they are idle.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Rule,
    listener::Client,
    relay::{Clock, Stream},
};

/// A connection is idle that has made no progress for so long.
const IDLE: Duration = Duration::from_secs(10);

/// Connections at a limit look for idle ones; all are gone through at most so often, unless there are more idle ones than
/// are noted.
const PAUSE: Duration = Duration::from_secs(1);

/// As many idle ones are noted at once.
const NOTED: usize = 1024;

/// Locks that connections of one namespace share.
const SHARDS: usize = 16;

/// A relayed connection, lingering or not. `S` is the place that it has taken.
#[derive(Debug)]
pub(crate) struct Carried<S> {
    pub(crate) clock: Clock,
    seat: Mutex<Option<S>>,
    evicted: CancellationToken,
    closed: CancellationToken,
    streams: [Weak<Stream>; 2],
    whose: Whose,
}

/// What somebody can name a connection by.
#[derive(Clone, Debug)]
pub(crate) struct Whose {
    pub(crate) client: Client,
    pub(crate) rule: Arc<Rule>,
}

impl<S> Carried<S> {
    /// Has it reset, and gives its place to the caller, unless it has none any more.
    pub(crate) fn evict(&self) -> Option<S> {
        let seat = self.leave();
        if seat.is_some() {
            self.evicted.cancel();
        }
        seat
    }

    /// Has it reset: somebody does not want it any more.
    pub(crate) fn close(&self) {
        self.closed.cancel();
    }

    /// Ready when somebody does not want it any more.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Ready when it has to make room.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    fn leave(&self) -> Option<S> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_idle(&self) -> bool {
        let has_seat = || self.seat.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.idle() >= IDLE && has_seat()
    }

    /// For how long it has made no progress. An acknowledgement since the last question is one.
    fn idle(&self) -> Duration {
        if self.clock.idle() >= IDLE
            && let [Some(client), Some(destination)] = self.streams.each_ref().map(Weak::upgrade)
        {
            self.clock.look(&client, &destination);
        }
        self.clock.idle()
    }
}

type Shard<S> = Mutex<HashMap<u64, Arc<Carried<S>>>>;

/// Knows the relayed connections of a namespace. Each takes one of its locks twice.
#[derive(Debug)]
pub(crate) struct Roster<S> {
    next: AtomicU64,
    /// Made for the first of them: most namespaces have none.
    shards: OnceLock<Box<[Shard<S>; SHARDS]>>,
    noted: Mutex<Noted<S>>,
}

/// Idle ones that were found, the longest idle last, and when it is worth while to look again.
#[derive(Debug)]
struct Noted<S> {
    idle: Vec<Arc<Carried<S>>>,
    again: Option<Instant>,
}

impl<S> Default for Roster<S> {
    fn default() -> Self {
        let noted = Noted { idle: Vec::new(), again: None };
        Self { next: AtomicU64::default(), shards: OnceLock::new(), noted: Mutex::new(noted) }
    }
}

/// A connection that is on the roster until this is dropped.
#[derive(Debug)]
pub(crate) struct OnRoster<'a, S> {
    roster: &'a Roster<S>,
    number: u64,
    carried: Arc<Carried<S>>,
}

impl<S> Roster<S> {
    pub(crate) fn enter(
        &self,
        seat: Option<S>,
        client: &Arc<Stream>,
        destination: &Arc<Stream>,
        whose: Whose,
    ) -> OnRoster<'_, S> {
        let carried = Arc::new(Carried {
            clock: Clock::start(),
            seat: Mutex::new(seat),
            evicted: CancellationToken::new(),
            closed: CancellationToken::new(),
            streams: [client, destination].map(Arc::downgrade),
            whose,
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.shard(number).insert(number, Arc::clone(&carried));
        OnRoster { roster: self, number, carried }
    }

    /// The connection that has been idle longest, if one is idle.
    pub(crate) fn longest_idle(&self) -> Option<Arc<Carried<S>>> {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(one) = noted.idle.last() {
                if one.is_idle() {
                    return Some(Arc::clone(one));
                }
                noted.idle.pop();
            }
            let now = Instant::now();
            if noted.again.is_some_and(|again| now < again) {
                return None;
            }
            self.note(&mut noted);
        }
    }

    /// Has those reset that are meant. Gives how many these are.
    pub(crate) fn close(&self, is_meant: impl Fn(&Whose) -> bool) -> usize {
        let mut count = 0;
        for shard in self.shards.get().into_iter().flat_map(|shards| shards.iter()) {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for one in shard.values().filter(|one| !one.closed.is_cancelled() && is_meant(&one.whose)) {
                one.close();
                count += 1;
            }
        }
        count
    }

    fn note(&self, noted: &mut Noted<S>) {
        let mut idle = Vec::new();
        for shard in self.shards.get().into_iter().flat_map(|shards| shards.iter()) {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            // One that was evicted stays until its task has run.
            let found = shard.values().filter(|one| one.is_idle());
            idle.extend(found.map(|one| (one.clock.idle(), Arc::clone(one))));
        }
        idle.sort_unstable_by_key(|(time, _)| *time);
        let rest = idle.len().saturating_sub(NOTED);
        noted.idle = idle.drain(rest..).map(|(_, one)| one).collect();
        // Where there are more, it is not time that has to pass but those that are noted that have to go.
        noted.again = (rest == 0).then(|| Instant::now() + PAUSE);
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Arc<Carried<S>>>> {
        let index = usize::try_from(number % SHARDS as u64).expect("less than the number of shards");
        self.shards.get_or_init(Box::default)[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> std::ops::Deref for OnRoster<'_, S> {
    type Target = Carried<S>;

    fn deref(&self) -> &Carried<S> {
        &self.carried
    }
}

impl<S> Drop for OnRoster<'_, S> {
    fn drop(&mut self) {
        drop(self.carried.leave());
        self.roster.shard(self.number).remove(&self.number);
    }
}

#[cfg(test)]
impl<S> Roster<S> {
    /// A connection that has been idle for so long, and stays.
    pub(crate) fn enter_idle(&self, seat: Option<S>, age: Duration) -> Arc<Carried<S>> {
        let carried = Arc::new(Carried {
            clock: Clock::aged(age),
            seat: Mutex::new(seat),
            evicted: CancellationToken::new(),
            closed: CancellationToken::new(),
            streams: [Weak::new(), Weak::new()],
            whose: Whose {
                client: Client(std::net::SocketAddr::from(([10, 0, 0, 1], 1))),
                rule: crate::intent::testing::rule("r", "80"),
            },
        });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.shard(number).insert(number, Arc::clone(&carried));
        carried
    }
}
