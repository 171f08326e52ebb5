//! One log line for many like events.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// At most one line in this time; the next one says how many were left out.
const INTERVAL: Duration = Duration::from_secs(5);

/// Lets one event through in 5 s. Only for paths that have failed: it takes a lock.
#[derive(Debug, Default)]
pub struct RateLimit(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl RateLimit {
    /// `Some(n)`: say it, and that `n` others were left out. `None`: this one is left out.
    pub fn pass(&self) -> Option<u64> {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_passes_and_the_rest_of_the_interval_is_counted() {
        let limit = RateLimit::default();
        assert_eq!(limit.pass(), Some(0));
        assert_eq!(limit.pass(), None);
        assert_eq!(limit.pass(), None);
        limit.0.lock().unwrap().last = Some(Instant::now().checked_sub(INTERVAL).unwrap());
        assert_eq!(limit.pass(), Some(2));
        assert_eq!(limit.pass(), None);
    }
}
