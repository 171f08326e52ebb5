//! Who may have how many connections at once.
//!
//! All namespaces share the places that the daemon has, and none can have more than three quarters of them. So that others cannot
//! take all, each steered namespace has a guarantee: so many places are its own, used or not. What it has beyond that it takes from
//! what nobody is guaranteed. At a limit the connection makes room that has been idle longest, in the namespace itself
//! or in one that has more; without one whose place the new one could have, the new one is refused.

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
pub(crate) struct Places {
    total: u64,
    per_namespace: u64,
    per_client: Option<NonZeroU32>,
    used: AtomicU64,
    /// Those that are used, and those that are guaranteed and not used: more than `total` only since a namespace has come
    /// for whose guarantee there was no room.
    bound: AtomicU64,
    /// Every namespace that has places. Its lock is held for a moment by a namespace that comes or goes, and by a
    /// connection that finds no place.
    shares: Mutex<Vec<Weak<Share>>>,
}

/// The places of one namespace.
#[derive(Debug)]
pub(crate) struct Share {
    places: Arc<Places>,
    /// See [`Holds`].
    holds: AtomicU64,
    is_guaranteed: AtomicBool,
    /// Its connections that can make room.
    pub(crate) roster: Roster,
    clients: Clients,
}

/// How many places a namespace uses, and how many it is guaranteed: together in one word, so that each change of either knows
/// by how much it changes [`Places::bound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holds {
    used: u32,
    guarantee: u32,
}

/// A place that a connection has taken. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Seat {
    share: Arc<Share>,
    client: Option<IpAddr>,
}

impl Holds {
    fn of(word: u64) -> Self {
        let [used, guarantee] = bytemuck::cast(word);
        Self { used, guarantee }
    }

    fn word(self) -> u64 {
        bytemuck::cast([self.used, self.guarantee])
    }

    /// What nobody else can have.
    fn bound(self) -> u64 {
        self.used.max(self.guarantee).into()
    }
}

impl Places {
    pub(crate) fn new(total: usize, per_client: Option<NonZeroU32>) -> Arc<Self> {
        let total = u64::from(u32::try_from(total).unwrap_or(u32::MAX));
        Arc::new(Self {
            total,
            per_namespace: (total - total / 4).max(1),
            per_client,
            used: AtomicU64::new(0),
            bound: AtomicU64::new(0),
            shares: Mutex::default(),
        })
    }

    /// The most that one namespace can have.
    pub(crate) fn per_namespace(&self) -> u64 {
        self.per_namespace
    }

    /// One more of a number that cannot be more than all places.
    fn one_more(&self, number: &AtomicU64) -> bool {
        let one_more = |now| (now < self.total).then_some(now + 1);
        number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Tells those who are guaranteed places how many, after a namespace has come or gone: together no more than half of all.
    /// What it gives must be dropped without the lock.
    fn share_out(&self, list: &[Weak<Share>]) -> Vec<Arc<Share>> {
        let shares: Vec<_> = list.iter().filter_map(Weak::upgrade).collect();
        let guaranteed = || shares.iter().filter(|share| share.is_guaranteed.load(Ordering::Relaxed));
        let guarantee = GUARANTEE.min(self.total / (2 * (guaranteed().count() as u64).max(1)));
        for share in guaranteed() {
            share.set_guarantee(guarantee);
        }
        shares
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Of a namespace that is steered.
    pub(crate) fn new(places: &Arc<Places>) -> Arc<Self> {
        let share = Arc::new(Self {
            places: Arc::clone(places),
            holds: AtomicU64::new(0),
            is_guaranteed: AtomicBool::new(true),
            roster: Roster::default(),
            clients: Clients::default(),
        });
        let mut list = places.lock();
        list.retain(|share| share.strong_count() > 0);
        list.push(Arc::downgrade(&share));
        let shares = places.share_out(&list);
        drop(list);
        drop(shares);
        share
    }

    /// Gives the guarantee up: no new connections will come.
    pub(crate) fn release(&self) {
        let list = self.places.lock();
        if !self.is_guaranteed.swap(false, Ordering::Relaxed) {
            return;
        }
        self.set_guarantee(0);
        let shares = self.places.share_out(&list);
        drop(list);
        drop(shares);
    }

    fn holds(&self) -> Holds {
        Holds::of(self.holds.load(Ordering::Relaxed))
    }

    /// Changes what it holds, unless `change` gives nothing: what it held before, and holds now.
    fn change(&self, mut change: impl FnMut(Holds) -> Option<Holds>) -> Option<(Holds, Holds)> {
        let mut to = None;
        let from = self.holds.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            to = change(Holds::of(word));
            to.map(Holds::word)
        });
        Some((Holds::of(from.ok()?), to?))
    }

    fn set_guarantee(&self, guarantee: u64) {
        let guarantee = u32::try_from(guarantee).unwrap_or(u32::MAX);
        if let Some((from, to)) = self.change(|holds| Some(Holds { guarantee, ..holds })) {
            self.places.bound.fetch_add(to.bound().wrapping_sub(from.bound()), Ordering::Relaxed);
        }
    }

    /// A place for a connection of this client.
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Result<Seat, NotDelivered> {
        let limited = self.places.per_client;
        if limited.is_some_and(|most| !self.clients.enter(client, most)) {
            return Err(NotDelivered::ClientLimit);
        }
        let client = limited.map(|_| client);
        let seat = self.take_one_more(client).or_else(|| self.take_of_idle(client));
        if let (None, Some(client)) = (&seat, client) {
            self.clients.leave(client);
        }
        seat.ok_or(NotDelivered::ConnectionLimit)
    }

    /// A place that is free. It takes no lock.
    fn take_one_more(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Seat> {
        let places = &self.places;
        let (mut is_bound, mut is_used) = (false, false);
        let taken = self.change(|holds| {
            let is_guaranteed = holds.used < holds.guarantee;
            is_bound = is_bound || (!is_guaranteed && places.one_more(&places.bound));
            // After that, so that nobody has for a moment what another one is guaranteed.
            is_used = is_used || ((is_guaranteed || is_bound) && places.one_more(&places.used));
            let may = is_used && (is_guaranteed || is_bound) && u64::from(holds.used) < places.per_namespace;
            may.then(|| Holds { used: holds.used + 1, ..holds })
        });
        let adds = taken.is_some_and(|(from, to)| from.bound() < to.bound());
        if is_bound && !adds {
            places.bound.fetch_sub(1, Ordering::Relaxed);
        }
        if is_used && taken.is_none() {
            places.used.fetch_sub(1, Ordering::Relaxed);
        }
        taken.map(|_| Seat { share: Arc::clone(self), client })
    }

    /// The place of a connection that is idle: of the one that has been idle longest.
    fn take_of_idle(self: &Arc<Self>, client: Option<IpAddr>) -> Option<Seat> {
        let shares: Vec<_> = self.places.lock().iter().filter_map(Weak::upgrade).collect();
        loop {
            // Its own can always make room. So it can with its place, which nobody else can take meanwhile.
            let others = shares.iter().filter(|share| !Arc::ptr_eq(share, self) && self.can_have_of(share));
            let asked = others.chain([self]).filter_map(|share| Some((share, share.roster.longest_idle()?)));
            let (share, idle) = asked.max_by_key(|(_, idle)| idle.clock.idle())?;
            // Without a seat somebody else was faster.
            let Some(mut seat) = idle.evict() else { continue };
            if Arc::ptr_eq(share, self) {
                if let Some(before) = std::mem::replace(&mut seat.client, client) {
                    self.clients.leave(before);
                }
                return Some(seat);
            }
            drop(seat);
            if let Some(seat) = self.take_one_more(client) {
                return Some(seat);
            }
        }
    }

    /// Whether it could have the place of a connection in another namespace. Nobody is pushed out by one that has more, and nobody
    /// of what is guaranteed.
    fn can_have_of(&self, other: &Self) -> bool {
        let (own, holds) = (self.holds(), other.holds());
        let is_room = own.used < own.guarantee || {
            let bound = self.places.bound.load(Ordering::Relaxed);
            bound <= self.places.total
        };
        is_room
            && u64::from(own.used) < self.places.per_namespace
            && holds.used > holds.guarantee
            && holds.used > own.used
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
        let places = &self.share.places;
        if let Some((from, to)) = self.share.change(|holds| Some(Holds { used: holds.used - 1, ..holds })) {
            places.bound.fetch_sub(from.bound() - to.bound(), Ordering::Relaxed);
        }
        places.used.fetch_sub(1, Ordering::Relaxed);
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
    use std::{net::Ipv4Addr, time::Duration};

    use futures_util::FutureExt as _;

    use super::{super::roster::Carried, *};

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
        assert!(shares.iter().all(|share| share.holds().used == 0));
        assert_eq!(bound(&places), 4 * 6, "what is guaranteed");
    }

    fn bound(places: &Places) -> u64 {
        places.bound.load(Ordering::Relaxed)
    }

    #[test]
    fn what_is_bound_is_exact_while_namespaces_come_and_go() {
        let places = Places::new(200, None);
        let stays = [(); 3].map(|()| Share::new(&places));
        std::thread::scope(|scope| {
            for share in &stays {
                scope.spawn(|| {
                    for round in 0..500 {
                        let some: Vec<_> = (0..round % 70).map_while(|_| share.take(CLIENT).ok()).collect();
                        assert!(share.places.used.load(Ordering::Relaxed) <= 200);
                        drop(some);
                    }
                });
            }
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let comes = Share::new(&places);
                        drop(comes.take(CLIENT));
                        comes.release();
                    }
                });
            }
        });
        assert_eq!(places.used.load(Ordering::Relaxed), 0);
        assert_eq!(bound(&places), 3 * 33);
        drop(stays);
        assert_eq!(bound(&places), 0);
    }

    #[test]
    fn there_is_no_lock_while_places_are_free() {
        let places = Places::new(400, None);
        let shares = [(); 2].map(|()| Share::new(&places));
        // Held by somebody else meanwhile: a take that wanted it would never end.
        let list = places.lock();
        let seats = shares
            .each_ref()
            .map(|share| (0..200).map_while(|_| share.take(CLIENT).ok()).collect::<Vec<_>>());
        drop(list);
        assert_eq!(seats.map(|seats| seats.len()), [200, 200]);
    }

    const AGE: Duration = Duration::from_secs(60);

    /// Connections of a namespace, as many as it gets, of which so many are idle: those, and the seats of the others.
    fn all_with_idle(share: &Arc<Share>, idle: usize) -> (Vec<Arc<Carried>>, Vec<Seat>) {
        let mut seats: Vec<_> = std::iter::from_fn(|| share.take_one_more(None)).collect();
        let busy = seats.split_off(idle.min(seats.len()));
        let idle = seats.into_iter().map(|seat| share.roster.enter_idle(Some(seat), AGE)).collect();
        (idle, busy)
    }

    fn evicted(idle: &[Arc<Carried>]) -> usize {
        idle.iter().filter(|one| one.evicted().now_or_never().is_some()).count()
    }

    #[test]
    fn nobody_is_evicted_where_that_makes_no_room() {
        let places = Places::new(100, None);
        let [a, b] = [(); 2].map(|()| Share::new(&places));
        let (idle, _busy_of_a) = all_with_idle(&a, 40);
        let _of_b: Vec<_> = std::iter::from_fn(|| b.take_one_more(None)).collect();
        assert_eq!(places.used.load(Ordering::Relaxed), 100);
        // For their guarantees there is no room.
        let [new, _other] = [(); 2].map(|()| Share::new(&places));
        for _ in 0..5 {
            assert_eq!(b.take(CLIENT).err(), Some(NotDelivered::ConnectionLimit));
        }
        assert_eq!(evicted(&idle), 0);
        let _own: Vec<_> = (0..12).map(|_| new.take(CLIENT).unwrap()).collect();
        assert_eq!(evicted(&idle), 12, "what is guaranteed makes room, one for one");
        assert_eq!(new.take(CLIENT).err(), Some(NotDelivered::ConnectionLimit));
        assert_eq!(evicted(&idle), 12);
    }

    #[test]
    fn at_the_limit_of_a_namespace_only_its_own_idle_ones_make_room_one_for_one() {
        let places = Places::new(100, None);
        let [a, b] = [(); 2].map(|()| Share::new(&places));
        let (idle_of_a, _busy) = all_with_idle(&a, 5);
        let idle_of_b = [(); 20].map(|()| b.roster.enter_idle(b.take_one_more(None), 2 * AGE));
        assert_eq!(a.holds().used, 75);
        // More are guaranteed than are free: its own places go from one to the other all the same.
        let _late = [(); 3].map(|()| Share::new(&places));
        let used = places.used.load(Ordering::Relaxed);
        let taken: Vec<_> = std::iter::from_fn(|| a.take(CLIENT).ok()).collect();
        assert_eq!((taken.len(), evicted(&idle_of_a), evicted(&idle_of_b)), (5, 5, 0));
        assert_eq!((places.used.load(Ordering::Relaxed), a.holds().used), (used, 75));
    }

    #[test]
    fn as_many_clients_at_once_as_there_are_idle_connections_get_their_places() {
        let places = Places::new(4000, NonZeroU32::new(4000));
        let share = Share::new(&places);
        let seats: Vec<_> = (0..3000).map(|_| share.take(CLIENT).unwrap()).collect();
        let enter = |seat| share.roster.enter_idle(Some(seat), AGE);
        let idle: Vec<_> = seats.into_iter().map(enter).collect();
        let other = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let taken = std::thread::scope(|scope| {
            let each = [(); 8]
                .map(|()| scope.spawn(|| (0..375).map_while(|_| share.take(other).ok()).collect::<Vec<_>>()));
            each.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!((taken.len(), evicted(&idle)), (3000, 3000));
        assert_eq!(share.take(CLIENT).err(), Some(NotDelivered::ConnectionLimit));
        drop(taken);
        assert_eq!(share.holds().used, 0);
        assert!(share.clients.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
