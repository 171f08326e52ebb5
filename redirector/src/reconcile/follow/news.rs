//! What those who follow containers have to look at.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    config::{Container, Engine},
    observe::RateLimit,
};

/// Told by whoever changes what is wanted, heard by a follower for each engine.
#[derive(Debug)]
pub(crate) struct News {
    /// Containers that a follower has to look at.
    due: Mutex<BTreeSet<Container>>,
    told: watch::Sender<()>,
    /// That rules cannot follow their container.
    pub(super) said_stuck: RateLimit,
}

impl Default for News {
    fn default() -> Self {
        Self { due: Mutex::default(), told: watch::Sender::new(()), said_stuck: RateLimit::default() }
    }
}

impl News {
    fn due(&self) -> MutexGuard<'_, BTreeSet<Container>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wanted has become other.
    pub(crate) fn tell(&self) {
        self.told.send_replace(());
    }

    /// Has a follower look at these.
    pub(crate) fn look_at(&self, containers: impl IntoIterator<Item = Container>) {
        self.due().extend(containers);
        self.tell();
    }

    /// Ready when something has been told after this call.
    pub(super) fn hear(&self) -> watch::Receiver<()> {
        self.told.subscribe()
    }

    /// A container of this engine that has to be looked at, and is not being looked at.
    pub(super) fn next_due(&self, engine: Engine, busy: &BTreeSet<Container>) -> Option<Container> {
        let mut due = self.due();
        let next = due.iter().find(|one| one.engine == engine && !busy.contains(one))?.clone();
        due.take(&next)
    }
}
