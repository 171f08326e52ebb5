//! Who holds the listeners of a lease whose process has ended, and from which of these nobody accepts.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::task::Process;

/// Those who hold the listeners, as the last look has shown. `None`: the process has not ended, or the lease is over.
#[derive(Debug, Default)]
pub(crate) struct Heirs(Mutex<Option<Vec<Process>>>);

impl Heirs {
    fn lock(&self) -> MutexGuard<'_, Option<Vec<Process>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lease goes on with who holds its listeners.
    pub(crate) fn is_there(&self) -> bool {
        self.lock().is_some()
    }

    /// The process has ended, and these hold the listeners.
    pub(crate) fn begin(&self, processes: Vec<Process>) {
        *self.lock() = Some(processes);
    }

    /// These hold them now; of a lease that goes on.
    pub(super) fn renew(&self, processes: Vec<Process>) {
        if let Some(heirs) = &mut *self.lock() {
            *heirs = processes;
        }
    }

    /// The lease is over.
    pub(super) fn end(&self) {
        *self.lock() = None;
    }

    /// Their numbers, as far as they live. `None`: the process has not ended, or the lease is over.
    pub(crate) fn numbers(&self) -> Option<Vec<i32>> {
        let heirs = self.lock();
        let living = heirs.as_ref()?.iter().filter(|process| process.is_there());
        Some(living.map(|process| process.number()).collect())
    }

    /// Whether one of them has ended.
    pub(crate) fn has_lost_one(&self) -> bool {
        self.lock().iter().flatten().any(|process| !process.is_there())
    }
}

/// Listeners that were taken out of their slots because nobody accepts from them, by cookie, and how many connections waited.
#[derive(Debug, Default)]
pub(super) struct Unserved(Mutex<HashMap<u64, u32>>);

impl Unserved {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, cookie: u64, waiting: u32) {
        self.lock().insert(cookie, waiting);
    }

    pub(super) fn remove(&self, cookie: u64) {
        self.lock().remove(&cookie);
    }

    pub(super) fn get(&self, cookie: u64) -> Option<u32> {
        self.lock().get(&cookie).copied()
    }
}
