//! Who may have how many connections at once.
//!
//! All namespaces share the places that the daemon has, and none can have more than three quarters of them. So that others cannot
//! take all, each steered namespace has a guarantee: so many places are its own, used or not. What it has beyond that it takes from
//! what nobody is guaranteed. At a limit the connection makes room that has been idle longest, in the namespace itself
//! or in one that has more; without one whose place the new one could have, the new one is refused.
//!
//! A place is two open files, and a namespace takes files as well: the more namespaces there are, the fewer places. Where there are
//! more connections than places, those that are idle make room, and a namespace for which there are no files does not come.

mod clients;
mod holds;

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use self::{clients::Clients, holds::Holds};
use super::{
    files::Files,
    roster::{self, Roster},
};
use crate::observe::NotDelivered;

/// The most that a namespace is guaranteed.
const GUARANTEE: u64 = 64;

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

/// A relayed connection with its place.
pub(crate) type Carried = roster::Carried<TakenPlace>;

/// A place that a connection has taken. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct TakenPlace {
    share: Arc<Share>,
    client: Option<IpAddr>,
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

#[cfg(test)]
mod tests;
