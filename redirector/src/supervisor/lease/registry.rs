//! Every lease, by the namespace where its listeners are.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use super::Lease;
use crate::{netns::NetnsCookie, supervisor::namespace::Namespace};

/// Leases whose listeners a program has, with a rule or no longer. A namespace that is steered anew has none of those from
/// before.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct Registry(Mutex<HashMap<NetnsCookie, Vec<Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    netns: Weak<Namespace>,
    lease: Arc<Lease>,
}

impl Entry {
    fn is_in(&self, netns: &Namespace) -> bool {
        std::ptr::eq(self.netns.as_ptr(), netns)
    }
}

impl Registry {
    pub(super) fn add(&self, netns: &Arc<Namespace>, lease: &Arc<Lease>) {
        let entry = Entry { netns: Arc::downgrade(netns), lease: Arc::clone(lease) };
        self.all().entry(netns.cookie).or_default().push(entry);
    }

    /// Those of a namespace.
    pub(in crate::supervisor) fn of(&self, netns: &Namespace) -> Vec<Arc<Lease>> {
        let all = self.all();
        let entries = all.get(&netns.cookie).into_iter().flatten();
        entries.filter(|entry| entry.is_in(netns)).map(|entry| Arc::clone(&entry.lease)).collect()
    }

    /// Whether a program has listeners there that were handed off.
    pub(in crate::supervisor) fn has(&self, netns: &Namespace) -> bool {
        self.all().get(&netns.cookie).is_some_and(|entries| entries.iter().any(|entry| entry.is_in(netns)))
    }

    /// Those of a namespace whose process has ended.
    pub(super) fn ended_in(&self, netns: &Namespace) -> Vec<Arc<Lease>> {
        let mut leases = self.of(netns);
        leases.retain(|lease| lease.has_ended());
        leases
    }

    /// Those whose process has ended, each with its namespace.
    pub(super) fn ended(&self) -> Vec<(Arc<Namespace>, Arc<Lease>)> {
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
    pub(super) fn forget(&self, netns: &Namespace, lease: &Arc<Lease>) {
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

    /// A namespace has died, and what it had is done.
    pub(in crate::supervisor) fn bury(&self, netns: &Namespace) -> Vec<Arc<Lease>> {
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
