//! Who may have how many connections at once.
//!
//! All namespaces share the places that the daemon has, and none can have more than three quarters of them. So that others cannot
//! take all, each steered namespace has a guarantee: so many places are its own, used or not. What it has beyond that it takes from
//! what nobody is guaranteed. At a limit the connection makes room that has been idle longest, in the namespace itself
//! or in one that has more; without one whose place the new one could have, the new one is refused.
//!
//! A place is two open files, and a namespace takes files as well: the more namespaces there are, the fewer places. Where there are
//! more connections than places, those that are idle make room, and a namespace for which there are no files does not come.

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

use super::{
    files::Files,
    roster::{self, Roster},
};
use crate::observe::NotDelivered;

/// The most that a namespace is guaranteed.
const GUARANTEE: u64 = 64;

/// Locks of one namespace for its clients' numbers.
const SHARDS: usize = 16;

/// The places of all namespaces.
#[derive(Debug)]
pub(crate) struct Places {
    files: Files,
    /// The most that there ever are.
    most: u64,
    /// As many as there are now.
    total: AtomicU64,
    per_client: Option<NonZeroU32>,
    used: AtomicU64,
    /// Those that are used, and those that are guaranteed and not used: more than `total` only since a namespace has come
    /// for whose guarantee, or files, there was no room.
    bound: AtomicU64,
    /// Every namespace that has places. Its lock is held for a moment by a namespace that comes or goes, and by a
    /// connection that finds no place.
    shares: Mutex<Vec<Weak<Share>>>,
}

/// The places of one namespace.
#[derive(Debug)]
pub(crate) struct Share {
    places: Arc<Places>,
    /// Open files that the namespace takes, connections apart.
    files: AtomicU64,
    /// See [`Holds`].
    holds: AtomicU64,
    is_guaranteed: AtomicBool,
    /// Its connections that can make room.
    pub(crate) roster: Roster<TakenPlace>,
    clients: Clients,
}

/// How many places a namespace uses, and how many it is guaranteed: together in one word, so that each change of either knows
/// by how much it changes [`Places::bound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holds {
    used: u32,
    guarantee: u32,
}

/// A relayed connection with its place.
pub(crate) type Carried = roster::Carried<TakenPlace>;

/// A place that a connection has taken. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct TakenPlace {
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
    /// As many places as these files allow, and at most so many.
    pub(crate) fn new(files: Files, most: usize, per_client: Option<NonZeroU32>) -> Arc<Self> {
        let most = u64::from(u32::try_from(most).unwrap_or(u32::MAX));
        Arc::new(Self {
            files,
            most,
            total: AtomicU64::new(files.places(0).min(most)),
            per_client,
            used: AtomicU64::new(0),
            bound: AtomicU64::new(0),
            shares: Mutex::default(),
        })
    }

    /// The most that one namespace can have.
    pub(crate) fn per_namespace(&self) -> u64 {
        let total = self.total();
        (total - total / 4).max(1)
    }

    fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Unused sockets of each family that one more namespace may keep.
    pub(crate) fn stock(&self) -> u64 {
        let namespaces = self.lock().iter().filter(|share| share.strong_count() > 0).count();
        self.files.stock(namespaces as u64 + 1).min(self.per_namespace() / 8)
    }

    /// Whether one more namespace can have files beside all that these and connections take.
    fn has_files_for_another(&self, list: &[Weak<Share>]) -> bool {
        let shares = living(list);
        self.files.suffice_for(files_of(&shares) + Files::OF_NAMESPACE, self.used.load(Ordering::Relaxed))
    }

    /// One more of a number that cannot be more than all places.
    fn one_more(&self, number: &AtomicU64) -> bool {
        let one_more = |now| (now < self.total()).then_some(now + 1);
        number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Finds out how many places there are, and tells those who are guaranteed some how many, after a namespace has come or
    /// gone: together no more than half of all. What it gives must be dropped without the lock.
    fn share_out(&self, list: &[Weak<Share>]) -> Vec<Arc<Share>> {
        let shares = living(list);
        self.total.store(self.files.places(files_of(&shares)).min(self.most), Ordering::Relaxed);
        let guaranteed = || shares.iter().filter(|share| share.is_guaranteed.load(Ordering::Relaxed));
        let guarantee = GUARANTEE.min(self.total() / (2 * (guaranteed().count() as u64).max(1)));
        for share in guaranteed() {
            share.set_guarantee(guarantee);
        }
        shares
    }

    /// Whether there are more connections than places: since a namespace has come.
    fn is_overfull(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.total()
    }

    /// Has connections that are idle make room for the files of a namespace that has come.
    fn make_room(&self, shares: &[Arc<Share>]) {
        while self.is_overfull() {
            let idle = shares.iter().filter_map(|share| share.roster.longest_idle());
            let Some(idle) = idle.max_by_key(|idle| idle.clock.idle()) else { return };
            drop(idle.evict());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn living(list: &[Weak<Share>]) -> Vec<Arc<Share>> {
    list.iter().filter_map(Weak::upgrade).collect()
}

/// Open files that namespaces take.
fn files_of(shares: &[Arc<Share>]) -> u64 {
    shares.iter().map(|share| share.files.load(Ordering::Relaxed)).sum()
}

impl Share {
    /// Of a namespace that is to be steered, if it can have files beside all that are taken.
    pub(crate) fn reserve(places: &Arc<Places>) -> Option<Arc<Self>> {
        let list = places.lock();
        let has_files = places.has_files_for_another(&list);
        has_files.then(|| Self::among(places, list))
    }

    /// Of a namespace that has files whatever others take.
    #[cfg(test)]
    fn new(places: &Arc<Places>) -> Arc<Self> {
        Self::among(places, places.lock())
    }

    fn among(places: &Arc<Places>, mut list: MutexGuard<'_, Vec<Weak<Self>>>) -> Arc<Self> {
        let share = Arc::new(Self {
            places: Arc::clone(places),
            files: AtomicU64::new(Files::OF_NAMESPACE),
            holds: AtomicU64::new(0),
            is_guaranteed: AtomicBool::new(true),
            roster: Roster::default(),
            clients: Clients::default(),
        });
        list.retain(|share| share.strong_count() > 0);
        list.push(Arc::downgrade(&share));
        let shares = places.share_out(&list);
        drop(list);
        places.make_room(&shares);
        drop(shares);
        share
    }

    /// Notes how many open files the namespace takes, connections apart.
    pub(crate) fn set_files(&self, files: u64) {
        if self.files.swap(files, Ordering::Relaxed) == files {
            return;
        }
        let shares = self.places.share_out(&self.places.lock());
        self.places.make_room(&shares);
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
    pub(crate) fn take(self: &Arc<Self>, client: IpAddr) -> Result<TakenPlace, NotDelivered> {
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
    fn take_one_more(self: &Arc<Self>, client: Option<IpAddr>) -> Option<TakenPlace> {
        let places = &self.places;
        let (mut is_bound, mut is_used) = (false, false);
        let taken = self.change(|holds| {
            let is_guaranteed = holds.used < holds.guarantee;
            is_bound = is_bound || (!is_guaranteed && places.one_more(&places.bound));
            // After that, so that nobody has for a moment what another one is guaranteed.
            is_used = is_used || ((is_guaranteed || is_bound) && places.one_more(&places.used));
            let may =
                is_used && (is_guaranteed || is_bound) && u64::from(holds.used) < places.per_namespace();
            may.then(|| Holds { used: holds.used + 1, ..holds })
        });
        let adds = taken.is_some_and(|(from, to)| from.bound() < to.bound());
        if is_bound && !adds {
            places.bound.fetch_sub(1, Ordering::Relaxed);
        }
        if is_used && taken.is_none() {
            places.used.fetch_sub(1, Ordering::Relaxed);
        }
        taken.map(|_| TakenPlace { share: Arc::clone(self), client })
    }

    /// The place of a connection that is idle: of the one that has been idle longest.
    fn take_of_idle(self: &Arc<Self>, client: Option<IpAddr>) -> Option<TakenPlace> {
        let shares: Vec<_> = self.places.lock().iter().filter_map(Weak::upgrade).collect();
        loop {
            // Its own can always make room. So it can with its place, which nobody else can take meanwhile.
            let others = shares.iter().filter(|share| !Arc::ptr_eq(share, self) && self.can_have_of(share));
            let asked = others.chain([self]).filter_map(|share| Some((share, share.roster.longest_idle()?)));
            let (share, idle) = asked.max_by_key(|(_, idle)| idle.clock.idle())?;
            // Without a seat somebody else was faster.
            let Some(mut seat) = idle.evict() else { continue };
            if Arc::ptr_eq(share, self) && !self.places.is_overfull() {
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
            bound <= self.places.total()
        };
        is_room
            && u64::from(own.used) < self.places.per_namespace()
            && holds.used > holds.guarantee
            && holds.used > own.used
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.release();
        // Its files are given back only now: connections have kept them.
        let shares = self.places.share_out(&self.places.lock());
        drop(shares);
    }
}

impl Drop for TakenPlace {
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

    use super::*;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// As many places as a namespace gets.
    fn all_of(share: &Arc<Share>) -> Vec<TakenPlace> {
        std::iter::from_fn(|| share.take(CLIENT).ok()).collect()
    }

    #[test]
    fn one_namespace_gets_three_quarters() {
        for (total, most) in [(1, 1), (2, 2), (3, 3), (4, 3), (400, 300)] {
            let places = Places::new(Files::UNLIMITED, total, None);
            let share = Share::new(&places);
            assert_eq!(all_of(&share).len(), most, "{total}");
            assert_eq!(all_of(&share).len(), most, "{total}, once more");
        }
    }

    #[test]
    fn two_namespaces_cannot_take_what_a_third_is_guaranteed() {
        for (total, guarantee) in [(4000, 64), (400, 64), (60, 10), (6, 1)] {
            let places = Places::new(Files::UNLIMITED, total, None);
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
        let places = Places::new(Files::UNLIMITED, 100, None);
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
        let places = Places::new(Files::UNLIMITED, 100, None);
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
        let places = Places::new(Files::UNLIMITED, 100, NonZeroU32::new(3));
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
        let places = Places::new(Files::UNLIMITED, 50, None);
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
        let places = Places::new(Files::UNLIMITED, 200, None);
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
        let places = Places::new(Files::UNLIMITED, 400, None);
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
    fn all_with_idle(share: &Arc<Share>, idle: usize) -> (Vec<Arc<Carried>>, Vec<TakenPlace>) {
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
        let places = Places::new(Files::UNLIMITED, 100, None);
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
        let places = Places::new(Files::UNLIMITED, 100, None);
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

    /// Places that these files allow.
    fn of_files(files: u64) -> Arc<Places> {
        Places::new(Files::new(files), usize::MAX, None)
    }

    #[test]
    fn namespaces_take_places_and_give_them_back_when_their_last_connection_has_ended() {
        let places = of_files(1024);
        assert_eq!(places.total(), 384);
        let first = Share::new(&places);
        let mut others: Vec<_> = (1..50).map(|_| Share::new(&places)).collect();
        assert_eq!(places.total(), 198);
        let (last, seat) =
            others.pop().map(|last| (Arc::downgrade(&last), last.take(CLIENT).unwrap())).unwrap();
        assert_eq!(places.total(), 198, "it is draining");
        drop(seat);
        assert_eq!((places.total(), last.strong_count()), (203, 0));
        first.set_files(Files::OF_NAMESPACE + Files::OF_BLACK_HOLE);
        assert_eq!(places.total(), 200);
        first.set_files(Files::OF_NAMESPACE);
        drop(others);
        assert_eq!((places.total(), first.places.per_namespace()), (384, 288));
    }

    #[test]
    fn what_the_user_allows_is_the_most_that_there_are() {
        for (most, namespaces, total) in [(10, 1, 10), (200, 49, 200), (200, 50, 198), (1, 2, 1)] {
            let places = Places::new(Files::new(1024), most, None);
            let shares: Vec<_> = (0..namespaces).map(|_| Share::new(&places)).collect();
            assert_eq!(places.total(), total, "{most} at most, {namespaces} namespaces");
            drop(shares);
        }
    }

    #[test]
    fn a_namespace_that_comes_has_idle_connections_make_room_for_its_files() {
        let places = of_files(256);
        let [a, b] = [(); 2].map(|()| Share::new(&places));
        let (idle_of_a, busy_of_a) = all_with_idle(&a, 3);
        let (idle_of_b, busy_of_b) = all_with_idle(&b, 3);
        let used = || places.used.load(Ordering::Relaxed);
        assert_eq!(used(), 96);
        let mut others = Vec::new();
        for (namespaces, used_then, evicted_then) in [(3, 96, 0), (4, 92, 4), (5, 90, 6), (6, 90, 6)] {
            others.resize_with(namespaces - 2, || Share::new(&places));
            assert_eq!(used(), used_then, "{namespaces} namespaces");
            assert_eq!(evicted(&idle_of_a) + evicted(&idle_of_b), evicted_then, "{namespaces} namespaces");
        }
        // There are more connections than places, and none is idle: what is free is for the namespaces.
        assert_eq!(places.total(), 82);
        assert!(a.take(CLIENT).is_err() && others[0].take(CLIENT).is_err());
        drop(busy_of_a);
        assert!(others[0].take(CLIENT).is_ok());
        drop(busy_of_b);
    }

    #[test]
    fn at_too_many_connections_an_idle_one_gives_its_place_to_nobody() {
        let places = of_files(256);
        let a = Share::new(&places);
        let (idle, busy) = all_with_idle(&a, 10);
        assert_eq!(busy.len(), 62);
        // As where namespaces have come before these were idle.
        places.total.store(32, Ordering::Relaxed);
        assert!(a.take(CLIENT).is_err());
        assert_eq!((evicted(&idle), places.used.load(Ordering::Relaxed)), (10, 62));
    }

    #[test]
    fn a_namespace_comes_where_files_are_left_for_it_beside_all_connections() {
        for (files, namespaces, connections, comes) in [
            (256, 1, 72, true),
            (256, 2, 96, true),
            (256, 12, 50, true),
            (256, 22, 1, true),
            (256, 23, 1, false),
            (64, 4, 0, false),
        ] {
            let places = of_files(files);
            let shares: Vec<_> = (0..namespaces).map(|_| Share::new(&places)).collect();
            let seats: Vec<_> =
                shares.iter().cycle().take(connections).map(|share| share.take_one_more(None)).collect();
            assert_eq!(
                Share::reserve(&places).is_some(),
                comes,
                "{files} files, {namespaces} namespaces, {connections}"
            );
            drop(seats);
        }
    }

    #[test]
    fn as_many_clients_at_once_as_there_are_idle_connections_get_their_places() {
        let places = Places::new(Files::UNLIMITED, 4000, NonZeroU32::new(4000));
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
