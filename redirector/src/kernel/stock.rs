//! What is made ahead, so that a single attach does not wait for what can be made before.
//!
//! Most of the time that an instance takes is one RCU grace period, for the map of maps of its rule set; then comes the verifier.
//! Both need no rule set, only its [`Shape`]. So a thread (`filler`) makes some of the shapes that were asked for lately, while
//! nobody asks for any. They are there while something is steered, and after the second time that somebody asked: a daemon that
//! steers nothing has nothing, and who steers one namespace only needs nothing.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use super::{
    loaded::{Loaded, Shape},
    parts::Parts,
};

/// How many shapes are remembered. Each has an equal part of what is in stock.
const KINDS: usize = 4;

/// What takes more memory than this is made when it is asked for.
const MOST_BYTES: usize = 64 << 10;

/// The same of counters, which each possible CPU has.
const MOST_COUNTED: u32 = 64;

/// Nothing is made before nobody has asked for so long: what is asked for comes first.
const QUIET: Duration = Duration::from_millis(10);

/// What an instance is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InstanceKind {
    pub(super) shape: Shape,
    /// How many rules it has counters for.
    pub(super) counted: u32,
}

impl InstanceKind {
    fn is_small(self) -> bool {
        self.shape.size() <= MOST_BYTES && self.counted <= MOST_COUNTED
    }
}

/// The stock of a daemon.
#[derive(Debug, Default)]
pub(super) struct Stock {
    /// How many there can be.
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    made: Vec<(InstanceKind, Parts)>,
    /// The latest first.
    lately: VecDeque<InstanceKind>,
    /// How often was asked.
    asked: u64,
    /// Namespaces that are steered.
    steered: usize,
    /// Those whose rule set another one has too.
    twins: Vec<Weak<Mutex<Loaded>>>,
    is_filling: bool,
}

/// What is to be done next.
pub(super) enum Step {
    Make(InstanceKind),
    Join(Weak<Mutex<Loaded>>),
}

impl Stock {
    pub(super) fn of(most: usize) -> Self {
        Self { most, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one of a kind, if there is one. In any case that kind will be there.
    pub(super) fn take(&self, kind: InstanceKind) -> Option<Parts> {
        if self.most == 0 || !kind.is_small() {
            return None;
        }
        let mut state = self.state();
        state.asked += 1;
        state.lately.retain(|one| *one != kind);
        state.lately.push_front(kind);
        state.lately.truncate(KINDS);
        let place = state.made.iter().position(|(one, _)| *one == kind)?;
        Some(state.made.swap_remove(place).1)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.state().made.len()
    }

    /// What to do next. `None`: nothing, and who asks does not ask again.
    pub(super) fn next(&self) -> Option<Step> {
        let mut state = self.state();
        if let Some(loaded) = state.twins.pop() {
            return Some(Step::Join(loaded));
        }
        let State { made, lately, steered, .. } = &mut *state;
        lately.truncate(self.most);
        let share = if *steered == 0 { 0 } else { self.most / lately.len().max(1) };
        let (mut kept, mut missing) = (Vec::new(), None);
        for kind in lately.iter() {
            let mut count = 0;
            while count < share
                && let Some(place) = made.iter().position(|(one, _)| one == kind)
            {
                kept.push(made.swap_remove(place));
                count += 1;
            }
            if count < share && missing.is_none() {
                missing = Some(Step::Make(*kind));
            }
        }
        let surplus = std::mem::replace(made, kept);
        state.is_filling = missing.is_some();
        drop(state);
        drop(surplus);
        missing
    }

    /// Puts one into the stock. It goes where nothing is steered any more.
    pub(super) fn put(&self, kind: InstanceKind, parts: Parts) {
        let mut state = self.state();
        if state.steered > 0 {
            state.made.push((kind, parts));
        }
    }

    /// Waits until nobody has asked for a moment.
    pub(super) fn wait_for_quiet(&self) {
        let mut before = self.state().asked;
        loop {
            thread::sleep(QUIET);
            let now = self.state().asked;
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// One more namespace is steered. `true`: who calls has to fill the stock.
    pub(super) fn begin(&self, twin: Option<Weak<Mutex<Loaded>>>) -> bool {
        let mut state = self.state();
        state.steered += 1;
        state.twins.extend(twin);
        state.asked > 1 && !std::mem::replace(&mut state.is_filling, true)
    }

    /// A namespace is steered no longer. What is in stock goes with the last of them.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.steered -= 1;
        let made = if state.steered == 0 { std::mem::take(&mut state.made) } else { Vec::new() };
        drop(state);
        drop(made);
    }

    /// Who filled the stock has given up.
    pub(super) fn give_up(&self) {
        self.state().is_filling = false;
    }
}
