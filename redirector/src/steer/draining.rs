//! Namespaces that are not steered any more and have connections left.

use std::sync::{Arc, Mutex, PoisonError, atomic::Ordering};

use super::steered::Steered;
use crate::control::DrainingView;

/// Held until the last connection has ended, and the last program that has listeners there: it keeps the
/// namespace too.
#[derive(Debug, Default)]
pub(crate) struct Draining(Mutex<Vec<Arc<Steered>>>);

impl Draining {
    pub(crate) fn push(&self, netns: &Arc<Steered>) {
        netns.tasks.close();
        let mut draining = self.lock();
        if !draining.iter().any(|one| Arc::ptr_eq(one, netns)) {
            draining.push(Arc::clone(netns));
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Steered>> {
        self.lock().clone()
    }

    /// Forgets those that are done: without a connection, and not `held` by a program that has listeners there.
    pub(crate) fn forget_done(&self, held: impl Fn(&Steered) -> bool) {
        self.lock().retain(|netns| !netns.tasks.is_empty() || held(netns));
    }

    /// Takes one out, if it is there.
    pub(crate) fn take(&self, netns: &Steered) -> bool {
        self.lock().extract_if(.., |one| std::ptr::eq(&**one, netns)).count() > 0
    }

    pub(crate) fn view(&self) -> Vec<DrainingView> {
        let all = self.all();
        let left = all.iter().filter(|netns| !netns.tasks.is_empty());
        left.map(|netns| DrainingView {
            target: netns.target.clone(),
            cookie: netns.cookie.0,
            connections: netns.connections.active.load(Ordering::Relaxed),
        })
        .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Steered>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
