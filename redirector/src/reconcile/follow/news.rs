//! What those who follow targets have to look at.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{config::Target, observe::RateLimit};

/// Told by whoever changes what is wanted, heard by a follower for each engine, and one for all other targets.
#[derive(Debug)]
pub(crate) struct News {
    /// Targets that a follower has to look at.
    due: Mutex<BTreeSet<Target>>,
    told: watch::Sender<()>,
    /// That rules cannot follow their target.
    pub(super) said_stuck: RateLimit,
}

impl Default for News {
    fn default() -> Self {
        Self { due: Mutex::default(), told: watch::Sender::new(()), said_stuck: RateLimit::default() }
    }
}

impl News {
    fn due(&self) -> MutexGuard<'_, BTreeSet<Target>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wanted has become other.
    pub(crate) fn tell(&self) {
        self.told.send_replace(());
    }

    /// Has a follower look at these.
    pub(crate) fn look_at(&self, targets: impl IntoIterator<Item = Target>) {
        self.due().extend(targets);
        self.tell();
    }

    /// Ready when something has been told after this call.
    pub(super) fn hear(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }

    /// A target that has to be looked at by whoever asks, and is not being looked at.
    pub(super) fn next_due(
        &self,
        is_mine: impl Fn(&Target) -> bool,
        busy: &BTreeSet<Target>,
    ) -> Option<Target> {
        let mut due = self.due();
        let next = due.iter().find(|one| is_mine(one) && !busy.contains(one))?.clone();
        due.take(&next)
    }
}
