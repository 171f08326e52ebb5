//! Who may have how many connections at once.
//!
//! All namespaces share the places that the daemon has, and none can have more than three quarters of them. So that others cannot
//! take all, each steered namespace has a guarantee: so many places are its own, used or not. What it has beyond that it takes from
//! what nobody is guaranteed. At a limit the connection makes room that has been idle longest, in the namespace itself
//! or in one that has more; without one that is idle the new one is refused.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::roster::Roster;
use crate::observe::NotDelivered;

/// The most that a namespace is guaranteed.
const GUARANTEE: u64 = 64;

/// Locks of one namespace for its clients' numbers.
const SHARDS: usize = 16;

/// The places of all namespaces.
#[derive(Debug)]
pub(super) struct Places {
    total: u64,
    per_namespace: u64,
    per_client: Option<NonZeroU32>,
    used: AtomicU64,
    /// How many have a guarantee.
    guaranteed: AtomicU64,
    /// Every namespace that has places. Its lock is held by who looks for a place where there are few.
    shares: Mutex<Vec<Weak<Share>>>,
}

/// The places of one namespace.
#[derive(Debug)]
pub(super) struct Share {
    places: Arc<Places>,
    used: AtomicU64,
    is_guaranteed: AtomicBool,
    /// Its connections that can make room.
    pub(super) roster: Roster,
    clients: Clients,
}

/// A place that a connection has taken. Dropping it frees it.
#[derive(Debug)]
pub(super) struct Seat {
    share: Arc<Share>,
    client: Option<IpAddr>,
}

impl Places {
    pub(super) fn new(total: usize, per_client: Option<NonZeroU32>) -> Arc<Self> {
        let total = total as u64;
        Arc::new(Self {
            total,
            per_namespace: (total - total / 4).max(1),
            per_client,
            used: AtomicU64::new(0),
            guaranteed: AtomicU64::new(0),
            shares: Mutex::default(),
        })
    }

    /// The most that one namespace can have.
    pub(super) fn per_namespace(&self) -> u64 {
        self.per_namespace
    }

    /// What each namespace is guaranteed: together no more than half of all places.
    fn guarantee(&self) -> u64 {
        let namespaces = self.guaranteed.load(Ordering::Relaxed).max(1);
        GUARANTEE.min(self.total / (2 * namespaces))
    }

    fn take_while(&self, free: impl Fn(u64) -> bool) -> bool {
        let one_more = |used| free(used).then_some(used + 1);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Of a namespace that is steered.
    pub(super) fn new(places: &Arc<Places>) -> Arc<Self> {
        let share = Arc::new(Self {
            places: Arc::clone(places),
            used: AtomicU64::new(0),
            is_guaranteed: AtomicBool::new(true),
            roster: Roster::default(),
            clients: Clients::default(),
        });
        let mut shares = places.lock();
        shares.retain(|share| share.strong_count() > 0);
        shares.push(Arc::downgrade(&share));
        places.guaranteed.fetch_add(1, Ordering::Relaxed);
        share
    }

    /// Gives the guarantee up: no new connections will come.
    pub(super) fn release(&self) {
        if self.is_guaranteed.swap(false, Ordering::Relaxed) {
            self.places.guaranteed.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// A place for a connection of this client.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr) -> Result<Seat, NotDelivered> {
        let limited = self.places.per_client;
        if limited.is_some_and(|most| !self.clients.enter(client, most)) {
            return Err(NotDelivered::ClientLimit);
        }
        let client = limited.map(|_| client);
        if self.take_own() && self.take_one_of_all() {
            return Ok(Seat { share: Arc::clone(self), client });
        }
        if let Some(client) = client {
            self.clients.leave(client);
        }
        Err(NotDelivered::ConnectionLimit)
    }

    /// Counts one more here, if the namespace may have one more.
    fn take_own(&self) -> bool {
        let most = self.places.per_namespace;
        let one_more = || {
            let one_more = |used| (used < most).then_some(used + 1);
            self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
        };
        one_more()
            || self.roster.longest_idle().is_some_and(|idle| {
                idle.evict();
                one_more()
            })
    }

    /// Counts one more of all; what was counted here is taken back if there is none.
    fn take_one_of_all(&self) -> bool {
        let places = &self.places;
        let set_aside = places.guarantee() * places.guaranteed.load(Ordering::Relaxed);
        // No lock for as long as there is enough for every guarantee.
        let taken = places.take_while(|used| used + set_aside < places.total) || self.take_one_of_few();
        if !taken {
            self.used.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    fn take_one_of_few(&self) -> bool {
        let places = &self.places;
        let shares = places.lock();
        let shares: Vec<_> = shares.iter().filter_map(Weak::upgrade).collect();
        let guarantee = places.guarantee();
        // Its own new one is counted already.
        let own = self.used.load(Ordering::Relaxed);
        let take = || {
            let of_others = if self.is_guaranteed.load(Ordering::Relaxed) && own <= guarantee {
                0
            } else {
                let others = shares.iter().filter(|share| !std::ptr::eq(&***share, self));
                others.map(|share| share.unused_guarantee(guarantee)).sum()
            };
            places.take_while(|used| used + of_others < places.total)
        };
        if take() {
            return true;
        }
        // Nobody is pushed out by one that has more, and nobody of what is guaranteed.
        let have_more = shares.iter().filter(|share| {
            let used = share.used.load(Ordering::Relaxed);
            std::ptr::eq(&***share, self) || (used > share.guarantee_of(guarantee) && used >= own)
        });
        let idle = have_more.filter_map(|share| share.roster.longest_idle());
        idle.max_by_key(|idle| idle.clock.idle()).is_some_and(|idle| {
            idle.evict();
            take()
        })
    }

    fn guarantee_of(&self, guarantee: u64) -> u64 {
        if self.is_guaranteed.load(Ordering::Relaxed) { guarantee } else { 0 }
    }

    fn unused_guarantee(&self, guarantee: u64) -> u64 {
        self.guarantee_of(guarantee).saturating_sub(self.used.load(Ordering::Relaxed))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            self.share.clients.leave(client);
        }
        self.share.used.fetch_sub(1, Ordering::Relaxed);
        self.share.places.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many connections each client has. Used only with a limit for them.
#[derive(Debug, Default)]
struct Clients {
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, u32>>; SHARDS],
}

impl Clients {
    /// One more, unless there are `most`.
    fn enter(&self, client: IpAddr, most: NonZeroU32) -> bool {
        let mut shard = self.shard(client);
        let count = shard.entry(client).or_default();
        let fits = *count < most.get();
        *count += u32::from(fits);
        fits
    }

    fn leave(&self, client: IpAddr) {
        let mut shard = self.shard(client);
        if let Some(count) = shard.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&client);
            }
        }
    }

    fn shard(&self, client: IpAddr) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        let hash = self.hasher.hash_one(client);
        let index = usize::try_from(hash % SHARDS as u64).expect("less than the number of shards");
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// As many places as a namespace gets.
    fn all_of(share: &Arc<Share>) -> Vec<Seat> {
        std::iter::from_fn(|| share.take(CLIENT).ok()).collect()
    }

    #[test]
    fn one_namespace_gets_three_quarters() {
        for (total, most) in [(1, 1), (2, 2), (3, 3), (4, 3), (400, 300)] {
            let places = Places::new(total, None);
            let share = Share::new(&places);
            assert_eq!(all_of(&share).len(), most, "{total}");
            assert_eq!(all_of(&share).len(), most, "{total}, once more");
        }
    }

    #[test]
    fn two_namespaces_cannot_take_what_a_third_is_guaranteed() {
        for (total, guarantee) in [(4000, 64), (400, 64), (60, 10), (6, 1)] {
            let places = Places::new(total, None);
            let [a, b, c] = [(); 3].map(|()| Share::new(&places));
            let (of_a, of_b, of_c) = (all_of(&a), all_of(&b), all_of(&c));
            let taken = of_a.len() + of_b.len();
            assert_eq!((taken, of_c.len()), (total - guarantee, guarantee), "{total}");
            drop(of_a);
            assert!(c.take(CLIENT).is_ok(), "{total}: what is free is everybody's");
        }
    }

    #[test]
    fn a_namespace_that_comes_when_all_is_taken_is_served_before_the_others() {
        let places = Places::new(100, None);
        let [a, b] = [(); 2].map(|()| Share::new(&places));
        let (mut of_a, of_b) = (all_of(&a), all_of(&b));
        assert_eq!(of_a.len() + of_b.len(), 100);
        let new = Share::new(&places);
        assert!(new.take(CLIENT).is_err());
        of_a.pop();
        assert!(a.take(CLIENT).is_err(), "it is the new one's");
        assert!(new.take(CLIENT).is_ok());
    }

    #[test]
    fn what_was_guaranteed_is_free_when_the_namespace_goes() {
        let places = Places::new(100, None);
        let [a, b] = [(); 2].map(|()| Share::new(&places));
        let c = Share::new(&places);
        let taken = all_of(&a).len() + all_of(&b).len();
        assert_eq!(taken, 100 - 16);
        c.release();
        drop(c);
        assert_eq!(all_of(&a).len() + all_of(&b).len(), 100);
    }

    #[test]
    fn a_client_gets_no_more_than_its_limit_and_others_go_on() {
        let places = Places::new(100, NonZeroU32::new(3));
        let [a, b] = [(); 2].map(|()| Share::new(&places));
        let mut of_a = all_of(&a);
        assert_eq!(of_a.len(), 3);
        assert_eq!(a.take(CLIENT).err(), Some(NotDelivered::ClientLimit));
        assert!(a.take(Ipv4Addr::UNSPECIFIED.into()).is_ok(), "another address");
        assert_eq!(all_of(&b).len(), 3, "the same address in another namespace is another client");
        of_a.pop();
        assert!(a.take(CLIENT).is_ok());
    }

    #[test]
    fn no_place_is_lost_or_made_by_many_threads_at_the_limit() {
        let places = Places::new(50, None);
        let shares = [(); 4].map(|()| Share::new(&places));
        std::thread::scope(|scope| {
            for share in shares.iter().chain(&shares) {
                scope.spawn(move || {
                    for _ in 0..2000 {
                        let some: Vec<_> = (0..10).map_while(|_| share.take(CLIENT).ok()).collect();
                        assert!(share.places.used.load(Ordering::Relaxed) <= 50);
                        drop(some);
                    }
                });
            }
        });
        assert_eq!(places.used.load(Ordering::Relaxed), 0);
        assert!(shares.iter().all(|share| share.used.load(Ordering::Relaxed) == 0));
    }
}
