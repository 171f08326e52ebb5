//! Every lease, by the namespace where its listeners are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::leased::Lease;
use crate::{netns::NetnsCookie, steer::Steered};

/// Leases that have ended and whose listeners somebody still holds, in one namespace. One more, and the first is
/// forgotten: it gets nothing, but who holds it is not ended when the namespace dies.
const MAX_ENDED: usize = 64;

/// Leases whose listeners a program has, with a rule or no longer. A namespace that is steered anew has none of those from
/// before.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<NetnsCookie, Vec<Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    netns: Weak<Steered>,
    lease: Arc<Lease>,
}

impl Entry {
    fn is_in(&self, netns: &Steered) -> bool {
        std::ptr::eq(self.netns.as_ptr(), netns)
    }
}

impl Registry {
    pub(crate) fn add(&self, netns: &Arc<Steered>, lease: &Arc<Lease>) {
        let entry = Entry { netns: Arc::downgrade(netns), lease: Arc::clone(lease) };
        self.all().entry(netns.cookie).or_default().push(entry);
    }

    /// Those of a namespace.
    pub(crate) fn of(&self, netns: &Steered) -> Vec<Arc<Lease>> {
        let all = self.all();
        let entries = all.get(&netns.cookie).into_iter().flatten();
        entries.filter(|entry| entry.is_in(netns)).map(|entry| Arc::clone(&entry.lease)).collect()
    }

    /// Whether a program has listeners there that were handed off.
    pub(crate) fn has(&self, netns: &Steered) -> bool {
        self.all().get(&netns.cookie).is_some_and(|entries| entries.iter().any(|entry| entry.is_in(netns)))
    }

    /// Those of a namespace that are over.
    pub(crate) fn ended_in(&self, netns: &Steered) -> Vec<Arc<Lease>> {
        let mut leases = self.of(netns);
        leases.retain(|lease| lease.has_ended());
        leases
    }

    /// Those that go on with who holds their listeners.
    pub(crate) fn held(&self) -> Vec<Arc<Lease>> {
        let all = self.all();
        let held = all.values().flatten().filter(|entry| entry.lease.heirs.is_there());
        held.map(|entry| Arc::clone(&entry.lease)).collect()
    }

    /// Those that are over, each with its namespace.
    pub(crate) fn ended(&self) -> Vec<(Arc<Steered>, Arc<Lease>)> {
        let mut all = self.all();
        // Of a namespace that nobody has any more nobody ends anything.
        all.retain(|_, entries| {
            entries.retain(|entry| entry.netns.strong_count() > 0);
            !entries.is_empty()
        });
        let ended = all.values().flatten().filter(|entry| entry.lease.has_ended());
        ended.filter_map(|entry| Some((entry.netns.upgrade()?, Arc::clone(&entry.lease)))).collect()
    }

    /// One whose rule could not be taken back yet is kept.
    pub(crate) fn forget(&self, netns: &Steered, lease: &Arc<Lease>) {
        if netns.is_steering() && lease.is_in_force(netns) {
            return;
        }
        let mut all = self.all();
        let Some(entries) = all.get_mut(&netns.cookie) else { return };
        entries.retain(|entry| !Arc::ptr_eq(&entry.lease, lease));
        if entries.is_empty() {
            all.remove(&netns.cookie);
        }
    }

    /// Leases of a namespace that have ended and whose listeners somebody still holds are not remembered without a bound.
    pub(crate) fn bound_ended(&self, netns: &Steered) {
        for lease in self.ended_in(netns).iter().rev().skip(MAX_ENDED) {
            tracing::warn!(netns = %netns.target, rule = %lease.rule.rule.name, "too many programs hold listeners whose lease has ended; the first is forgotten");
            self.forget(netns, lease);
        }
    }

    /// A namespace has died, and what it had is done.
    pub(crate) fn bury(&self, netns: &Steered) -> Vec<Arc<Lease>> {
        let mut all = self.all();
        let Some(entries) = all.get_mut(&netns.cookie) else { return Vec::new() };
        let dead = entries.extract_if(.., |entry| entry.is_in(netns)).map(|entry| entry.lease).collect();
        if entries.is_empty() {
            all.remove(&netns.cookie);
        }
        dead
    }

    fn all(&self) -> MutexGuard<'_, HashMap<NetnsCookie, Vec<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
