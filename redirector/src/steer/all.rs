//! Every namespace that there is something of, steered or not, for who cannot wait for a change to end.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::steered::Steered;

/// Holds none of them.
#[derive(Debug, Default)]
pub(crate) struct All(Mutex<Vec<Weak<Steered>>>);

impl All {
    /// Makes one. Who asks for those that there are has it from the moment on from which its death is watched for.
    pub(crate) fn add(&self, make: impl FnOnce() -> Arc<Steered>) -> Arc<Steered> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let netns = make();
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&netns));
        netns
    }

    pub(crate) fn living(&self) -> Vec<Arc<Steered>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}
