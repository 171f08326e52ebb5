//! Whose turn it is to change what: one change at a time of each namespace, and of what is wanted for each container. A change
//! says all that it is about at once, so that no two of them can wait for one another; they are served in the order in which
//! they have come, so that none waits for ever.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{intent::Subject, netns::NetnsCookie};

/// All that a change is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    These(BTreeSet<Subject>),
    All,
}

impl Scope {
    fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::These(these), Self::These(others)) => !these.is_disjoint(others),
            (Self::All, Self::These(these)) | (Self::These(these), Self::All) => !these.is_empty(),
            (Self::All, Self::All) => true,
        }
    }
}

/// The changes that are under way, and those that wait, in the order in which they have come.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    changes: VecDeque<Change>,
    /// The number of the next one.
    next: u64,
}

#[derive(Debug)]
struct Change {
    number: u64,
    scope: Scope,
    /// To be told when its turn has come, while it waits.
    waits: Option<oneshot::Sender<()>>,
}

/// It is held for as long as a change lasts.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    number: u64,
    scope: Scope,
}

impl Turn {
    /// Whether something is part of what this is about.
    pub(crate) fn holds(&self, subject: &Subject) -> bool {
        match &self.scope {
            Scope::These(these) => these.contains(subject),
            Scope::All => true,
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.turns.queue();
        queue.changes.retain(|change| change.number != self.number);
        queue.wake();
    }
}

impl Turns {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nothing else of this is being changed.
    pub(crate) async fn take(self: &Arc<Self>, scope: Scope) -> Turn {
        let (told, tells) = oneshot::channel();
        let turn = {
            let mut queue = self.queue();
            let number = queue.next;
            queue.next += 1;
            queue.changes.push_back(Change { number, scope: scope.clone(), waits: Some(told) });
            queue.wake();
            // From here on its end is the end of the wait, too.
            Turn { turns: Arc::clone(self), number, scope }
        };
        // The sender goes only when it has told, or with the turn.
        drop(tells.await);
        turn
    }

    /// The turn of one namespace.
    pub(crate) async fn of(self: &Arc<Self>, netns: NetnsCookie) -> Turn {
        self.take(Scope::These(BTreeSet::from([Subject::Netns(netns)]))).await
    }

    /// The same, if nobody has it or waits for it.
    pub(crate) fn try_of(self: &Arc<Self>, netns: NetnsCookie) -> Option<Turn> {
        let scope = Scope::These(BTreeSet::from([Subject::Netns(netns)]));
        let mut queue = self.queue();
        if queue.changes.iter().any(|change| change.scope.meets(&scope)) {
            return None;
        }
        let number = queue.next;
        queue.next += 1;
        queue.changes.push_back(Change { number, scope: scope.clone(), waits: None });
        Some(Turn { turns: Arc::clone(self), number, scope })
    }
}

impl Queue {
    /// Tells those whose turn has come: nothing that came before them is about the same.
    fn wake(&mut self) {
        for index in 0..self.changes.len() {
            let (before, rest) = self.changes.make_contiguous().split_at_mut(index);
            let change = &mut rest[0];
            if change.waits.is_some() && !before.iter().any(|one| one.scope.meets(&change.scope)) {
                // One that has given up ends by itself.
                change.waits.take().map(|waits| waits.send(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    fn these(numbers: &[u64]) -> Scope {
        Scope::These(numbers.iter().map(|number| Subject::Netns(NetnsCookie(*number))).collect())
    }

    /// Each line: changes in the order in which they come, `None` for one of everything; and whether each has its turn at
    /// once.
    #[tokio::test]
    async fn a_change_waits_for_those_before_it_that_are_about_the_same_and_for_no_other() {
        type Case<'a> = (&'a [Option<&'a [u64]>], &'a [bool]);
        let cases: [Case<'_>; 8] = [
            (&[Some(&[1]), Some(&[2])], &[true, true]),
            (&[Some(&[1]), Some(&[1])], &[true, false]),
            (&[Some(&[1, 2]), Some(&[2, 3]), Some(&[3])], &[true, false, false]),
            (&[Some(&[1, 2]), Some(&[3, 4]), Some(&[2, 3])], &[true, true, false]),
            (&[None, Some(&[1]), Some(&[])], &[true, false, true]),
            (&[Some(&[1]), None, Some(&[2])], &[true, false, false]),
            (&[Some(&[]), None, None], &[true, true, false]),
            (&[Some(&[1]), Some(&[1, 2]), Some(&[2]), Some(&[4])], &[true, false, false, true]),
        ];
        for (changes, expected) in cases {
            let turns = Arc::new(Turns::default());
            let scope = |change: &Option<&[u64]>| change.map_or(Scope::All, these);
            let mut waiting: Vec<_> =
                changes.iter().map(|change| Box::pin(turns.take(scope(change)))).collect();
            let mut had = Vec::new();
            let mut held = Vec::new();
            for one in &mut waiting {
                let polled = poll!(one.as_mut());
                had.push(polled.is_ready());
                held.push(polled);
            }
            assert_eq!(had, expected, "{changes:?}");
            // Those that had no turn yet get it in their order.
            for (index, one) in waiting.iter_mut().enumerate().filter(|(index, _)| !expected[*index]) {
                held.iter_mut().take(index).for_each(|before| *before = Poll::Pending);
                held[index] = Poll::Ready(one.as_mut().await);
            }
        }
    }

    #[tokio::test]
    async fn who_gives_up_keeps_nobody_waiting() {
        let turns = Arc::new(Turns::default());
        let first = turns.take(these(&[1])).await;
        let mut given_up = Box::pin(turns.take(these(&[1, 2])));
        assert!(poll!(given_up.as_mut()).is_pending());
        let mut other = Box::pin(turns.take(these(&[2])));
        assert!(poll!(other.as_mut()).is_pending());
        drop(given_up);
        assert!(poll!(other.as_mut()).is_ready());
        drop(first);
        assert_eq!(turns.queue().changes.len(), 0);
    }

    #[tokio::test]
    async fn who_does_not_wait_has_a_turn_only_where_nobody_else_is() {
        let turns = Arc::new(Turns::default());
        let one = turns.try_of(NetnsCookie(1)).expect("it is free");
        assert!(turns.try_of(NetnsCookie(1)).is_none());
        assert!(turns.try_of(NetnsCookie(2)).is_some());
        let mut waits = Box::pin(turns.take(these(&[1, 3])));
        assert!(poll!(waits.as_mut()).is_pending());
        assert!(turns.try_of(NetnsCookie(3)).is_none(), "somebody waits for it");
        drop(one);
        drop(waits.await);
        assert!(turns.try_of(NetnsCookie(1)).is_some());
    }

    #[tokio::test]
    async fn a_turn_says_what_it_holds() {
        let turns = Arc::new(Turns::default());
        let turn = turns.take(these(&[1])).await;
        assert!(turn.holds(&Subject::Netns(NetnsCookie(1))) && !turn.holds(&Subject::Netns(NetnsCookie(2))));
        drop(turn);
        assert!(turns.take(Scope::All).await.holds(&Subject::Netns(NetnsCookie(7))));
    }
}
