//! What it takes to dial in a namespace past our own program there, for each one that is steered.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;

use super::source_ports::SourcePorts;
use crate::{kernel::Bypass, netns::NetnsCookie};

/// What a connection needs that goes from an address of a steered namespace to that same address.
#[derive(Debug)]
pub(crate) struct Itself {
    pub(crate) bypass: Arc<Bypass>,
    pub(crate) ports: SourcePorts,
}

/// That of each steered namespace. Read by every dial, without a lock.
#[derive(Debug, Default)]
pub(crate) struct Selves(ArcSwap<HashMap<NetnsCookie, Arc<Itself>>>);

impl Selves {
    pub(crate) fn insert(&self, netns: NetnsCookie, itself: &Arc<Itself>) {
        self.0.rcu(|steered| {
            let mut steered = HashMap::clone(steered);
            steered.insert(netns, Arc::clone(itself));
            steered
        });
    }

    pub(crate) fn remove(&self, netns: NetnsCookie) {
        self.0.rcu(|steered| {
            let mut steered = HashMap::clone(steered);
            steered.remove(&netns);
            steered
        });
    }

    pub(crate) fn get(&self, netns: NetnsCookie) -> Option<Arc<Itself>> {
        self.0.load().get(&netns).map(Arc::clone)
    }
}
