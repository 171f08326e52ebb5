//! The accept queue of a listener, looked at again and again: whether anybody accepts from it.
//!
//! The kernel does not tell when somebody has accepted last, nor which connection is first in a queue. What it tells is how many
//! connections wait, and of each connection whether a process has it. While nobody accepts, a queue becomes longer by each
//! connection that comes and never shorter. So somebody has accepted between two looks when a connection that waited has a process
//! now, or when the queue is shorter than it was and those that have come since make it. A connection that its client has given
//! up stays in the queue, and changes nothing about that.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// What one look has seen of the queue. Which connections there are is asked between two questions for its length.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueueLook {
    /// How many waited before the connections were looked at.
    pub(crate) before: u32,
    /// How many waited after that.
    pub(crate) after: u32,
    /// The connections that no process has, by the cookies of their sockets.
    pub(crate) waiting: HashSet<u64>,
    /// Those that a process has.
    pub(crate) accepted: HashSet<u64>,
}

/// What the looks until now have shown.
#[derive(Debug, Default)]
pub(crate) struct AcceptQueue {
    /// From when on somebody has waited and nobody has accepted. `None`: nobody waits.
    since: Option<Instant>,
    last: QueueLook,
}

impl AcceptQueue {
    /// For how long nobody has accepted although somebody waits. `None`: nobody waits.
    pub(crate) fn look(&mut self, now: Instant, look: QueueLook) -> Option<Duration> {
        let is_empty = look.before == 0 || look.after == 0;
        let since = match self.since {
            _ if is_empty => None,
            Some(since) if !self.is_served(&look) => Some(since),
            _ => Some(now),
        };
        (self.since, self.last) = (since, look);
        since.map(|since| now.saturating_duration_since(since))
    }

    /// Whether somebody has accepted since the last look.
    fn is_served(&self, now: &QueueLook) -> bool {
        // Those that came between a look at the length and one at the connections are in neither number, or in both.
        let come = now.waiting.difference(&self.last.waiting).count();
        let least = usize::try_from(self.last.before).unwrap_or(usize::MAX).saturating_add(come);
        usize::try_from(now.after).is_ok_and(|after| after < least)
            || self.last.waiting.intersection(&now.accepted).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks a second apart: how many wait, which of them, and which have a process. Gives the seconds for which nobody has
    /// accepted.
    fn seconds(looks: &[(u32, &[u64], &[u64])]) -> Vec<Option<u64>> {
        let begin = Instant::now();
        let mut queue = AcceptQueue::default();
        let looks = looks.iter().zip(0..).map(|((length, waiting, accepted), second)| {
            let of = |cookies: &[u64]| cookies.iter().copied().collect();
            let look =
                QueueLook { before: *length, after: *length, waiting: of(waiting), accepted: of(accepted) };
            queue.look(begin + Duration::from_secs(second), look).map(|age| age.as_secs())
        });
        looks.collect()
    }

    #[test]
    fn a_queue_that_nobody_empties_becomes_older() {
        for looks in [
            // The same ones wait.
            &[(1, &[7][..], &[][..]), (1, &[7], &[]), (1, &[7], &[])][..],
            // More come.
            &[(1, &[7], &[]), (2, &[7, 8], &[]), (4, &[7, 8, 9, 10], &[])],
            // The first one was given up by its client, and waits all the same.
            &[(1, &[7], &[]), (1, &[], &[]), (2, &[8], &[])],
            // One that is given up as soon as it has come.
            &[(1, &[7], &[]), (2, &[7], &[]), (3, &[7], &[])],
            // Others' connections are served.
            &[(1, &[7], &[]), (1, &[7], &[20]), (1, &[7], &[21])],
        ] {
            assert_eq!(seconds(looks), [Some(0), Some(1), Some(2)], "{looks:?}");
        }
    }

    #[test]
    fn a_queue_that_somebody_serves_does_not_however_many_wait() {
        for looks in [
            // It is shorter.
            &[(9, &[][..], &[][..]), (8, &[], &[]), (7, &[], &[])][..],
            // One goes and one comes.
            &[(1, &[7], &[]), (1, &[8], &[]), (1, &[9], &[])],
            // The same, and it is served at this moment.
            &[(1, &[7], &[]), (1, &[8], &[7]), (1, &[9], &[8])],
            // One that was there is served, and more have come and were given up than can be seen.
            &[(1, &[7], &[]), (5, &[8], &[7]), (9, &[9], &[8])],
        ] {
            assert_eq!(seconds(looks), [Some(0); 3], "{looks:?}");
        }
    }

    #[test]
    fn an_empty_queue_begins_anew() {
        let looks: &[(u32, &[u64], &[u64])] =
            &[(0, &[], &[]), (1, &[7], &[]), (1, &[7], &[]), (0, &[], &[7]), (1, &[8], &[]), (1, &[8], &[])];
        assert_eq!(seconds(looks), [None, Some(0), Some(1), None, Some(0), Some(1)]);
    }

    #[test]
    fn connections_that_come_amid_a_look_are_not_taken_for_served_ones() {
        let mut queue = AcceptQueue::default();
        let begin = Instant::now();
        let look = |before, after, waiting: &[u64]| QueueLook {
            before,
            after,
            waiting: waiting.iter().copied().collect(),
            accepted: HashSet::new(),
        };
        // One came after the connections were seen, one before.
        for (second, one) in
            [look(1, 2, &[1]), look(2, 4, &[1, 2, 3]), look(4, 4, &[1, 2, 3, 4])].into_iter().enumerate()
        {
            let now = begin + Duration::from_secs(second as u64);
            assert_eq!(queue.look(now, one), Some(now - begin));
        }
    }
}
