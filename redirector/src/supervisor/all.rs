//! Every namespace that there is something of, steered or not, for who cannot wait for a change to end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::namespace::Namespace;

/// Holds none of them.
#[derive(Debug, Default)]
pub(super) struct All(Mutex<Vec<Weak<Namespace>>>);

impl All {
    pub(super) fn add(&self, netns: &Arc<Namespace>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(netns));
    }

    pub(super) fn living(&self) -> Vec<Arc<Namespace>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}
