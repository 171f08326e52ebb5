//! What it takes to dial in a namespace past our own program there, for each one that is steered.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use super::dial::Itself;
use crate::netns::NetnsCookie;

/// Read by every dial, without a lock.
#[derive(Debug, Default)]
pub(super) struct Steered(ArcSwap<HashMap<NetnsCookie, Arc<Itself>>>);

impl Steered {
    pub(super) fn insert(&self, netns: NetnsCookie, itself: &Arc<Itself>) {
        self.0.rcu(|steered| {
            let mut steered = HashMap::clone(steered);
            steered.insert(netns, Arc::clone(itself));
            steered
        });
    }

    pub(super) fn remove(&self, netns: NetnsCookie) {
        self.0.rcu(|steered| {
            let mut steered = HashMap::clone(steered);
            steered.remove(&netns);
            steered
        });
    }

    pub(super) fn get(&self, netns: NetnsCookie) -> Option<Arc<Itself>> {
        self.0.load().get(&netns).map(Arc::clone)
    }
}
