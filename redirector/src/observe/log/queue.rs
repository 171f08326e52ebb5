//! Lines that wait to be written: never more than fit, and nobody waits for a place.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What waits, in the order in which it was logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A line, with its end.
    Line(Vec<u8>),
    /// So many lines found no place here.
    Lost(u64),
}

/// A bounded queue with one writer at its end.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    done: Condvar,
    /// The most that may wait, in bytes.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    /// That the lines take, the one that is being written included.
    bytes: usize,
    /// The entry that is being written, in bytes.
    writing: Option<usize>,
    /// Entries that the writer is done with.
    done: u64,
    /// Lines that were not written, whatever the reason.
    lost: u64,
}

/// Of a line, besides its text.
const OVERHEAD: usize = 64;

impl Queue {
    pub(super) const fn new(most: usize) -> Self {
        let state = State { entries: VecDeque::new(), bytes: 0, writing: None, done: 0, lost: 0 };
        Self { state: Mutex::new(state), arrived: Condvar::new(), done: Condvar::new(), most }
    }

    /// Takes a line; where there is no place for it, it is counted.
    pub(super) fn push(&self, line: Vec<u8>) {
        let mut state = self.lock();
        let size = line.len() + OVERHEAD;
        if state.bytes + size <= self.most {
            state.bytes += size;
            state.entries.push_back(Entry::Line(line));
        } else {
            state.lost += 1;
            if let Some(Entry::Lost(count)) = state.entries.back_mut() {
                *count += 1;
            } else {
                state.entries.push_back(Entry::Lost(1));
            }
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// The next entry, for the writer. The one before is done with. `None` when the time is up.
    pub(super) fn next(&self, patience: Option<Duration>) -> Option<Entry> {
        let mut state = self.lock();
        if let Some(size) = state.writing.take() {
            state.bytes -= size;
            state.done += 1;
            self.done.notify_all();
        }
        while state.entries.is_empty() {
            state = match patience {
                None => self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(patience) => {
                    let waited = self.arrived.wait_timeout(state, patience);
                    let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() && state.entries.is_empty() {
                        return None;
                    }
                    state
                }
            };
        }
        let entry = state.entries.pop_front();
        state.writing = entry.as_ref().map(|entry| match entry {
            Entry::Line(line) => line.len() + OVERHEAD,
            Entry::Lost(_) => 0,
        });
        entry
    }

    /// Counts a line that had a place and could not be written.
    pub(super) fn count_lost(&self) {
        self.lock().lost += 1;
    }

    /// Lines that were not written.
    pub(super) fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Waits until everything is written: for as long as the writer gets on, and no longer than `most`. `still` is how
    /// long it may be with one line.
    pub(super) fn flush(&self, still: Duration, most: Duration) {
        let end = Instant::now() + most;
        let mut state = self.lock();
        while !state.entries.is_empty() || state.writing.is_some() {
            let patience = still.min(end.saturating_duration_since(Instant::now()));
            let before = state.done;
            let waited = self.done.wait_timeout_while(state, patience, |state| state.done == before);
            let (now, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return;
            }
            state = now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn a_full_queue_counts_what_it_does_not_take_in_its_place() {
        let queue = Queue::new(2 * (OVERHEAD + 1));
        for text in ["a", "b", "c", "d"] {
            queue.push(line(text));
        }
        let now = Some(Duration::ZERO);
        assert_eq!(queue.next(now), Some(Entry::Line(line("a"))));
        // The one that is being written has its place still.
        queue.push(line("e"));
        assert_eq!(queue.next(now), Some(Entry::Line(line("b"))));
        queue.push(line("f"));
        assert_eq!(queue.next(now), Some(Entry::Lost(3)));
        assert_eq!(queue.next(now), Some(Entry::Line(line("f"))));
        assert_eq!(queue.next(now), None);
        assert_eq!(queue.lost(), 3);
    }

    #[test]
    fn a_line_longer_than_the_queue_is_lost_and_the_next_one_is_not() {
        let queue = Queue::new(OVERHEAD + 10);
        queue.push(vec![b'x'; 11]);
        queue.push(line("y"));
        let now = Some(Duration::ZERO);
        assert_eq!(queue.next(now), Some(Entry::Lost(1)));
        assert_eq!(queue.next(now), Some(Entry::Line(line("y"))));
    }

    #[test]
    fn a_flush_waits_for_no_writer_that_stands_still() {
        let queue = Queue::new(1 << 10);
        queue.push(line("a"));
        queue.flush(Duration::from_millis(1), Duration::from_secs(1000));
        assert_eq!(queue.next(None), Some(Entry::Line(line("a"))));
        // Taken is not written.
        queue.flush(Duration::from_secs(1000), Duration::from_millis(1));
        assert_eq!(queue.next(Some(Duration::ZERO)), None);
        queue.flush(Duration::from_secs(1000), Duration::from_secs(1000));
    }
}
