//! The namespaces that are steered now.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::steered::Steered;
use crate::{config::Target, netns::NetnsCookie};

/// By cookie. Who changes what it says of a namespace has that one's turn ([`super::Turns`]); who reads needs none.
#[derive(Debug, Default)]
pub(crate) struct Table(Mutex<HashMap<NetnsCookie, Arc<Steered>>>);

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<NetnsCookie, Arc<Steered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, cookie: NetnsCookie) -> Option<Arc<Steered>> {
        self.lock().get(&cookie).cloned()
    }

    /// Whether this one is in it, and not another one with its cookie.
    pub(crate) fn has(&self, netns: &Steered) -> bool {
        self.lock().get(&netns.cookie).is_some_and(|one| std::ptr::eq(&**one, netns))
    }

    /// The one that was named so when it was first steered.
    pub(crate) fn named(&self, target: &Target) -> Option<Arc<Steered>> {
        self.lock().values().find(|netns| netns.target == *target).cloned()
    }

    pub(crate) fn insert(&self, netns: &Arc<Steered>) {
        self.lock().insert(netns.cookie, Arc::clone(netns));
    }

    pub(crate) fn remove(&self, cookie: NetnsCookie) {
        self.lock().remove(&cookie);
    }

    /// All of them, in the order of their cookies.
    pub(crate) fn all(&self) -> Vec<Arc<Steered>> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_unstable_by_key(|netns| netns.cookie);
        all
    }

    /// Takes all of them out.
    pub(crate) fn drain(&self) -> Vec<Arc<Steered>> {
        self.lock().drain().map(|(_, netns)| netns).collect()
    }
}
