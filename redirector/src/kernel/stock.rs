//! What is made ahead, so that a single attach does not wait for what can be made before.
//!
//! Most of the time that an instance takes is one RCU grace period, for the map of maps of its rule set; then comes the verifier.
//! Both need no rule set, only its [`Shape`]. So a thread makes some of the shapes that were asked for lately, while nobody asks
//! for any. They are there while something is steered, and after the second time that somebody asked: a daemon that steers
//! nothing has nothing, and who steers one namespace only needs nothing.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::Duration,
};

use super::{
    Shared,
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
pub(super) struct Kind {
    pub(super) shape: Shape,
    /// How many rules it has counters for.
    pub(super) counted: u32,
}

impl Kind {
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
    made: Vec<(Kind, Parts)>,
    /// The latest first.
    lately: VecDeque<Kind>,
    /// How often was asked.
    asked: u64,
    /// Namespaces that are steered.
    steered: usize,
    /// Those whose rule set another one has too.
    twins: Vec<Weak<Mutex<Loaded>>>,
    is_filling: bool,
}

/// What is to be done next.
enum Next {
    Make(Kind),
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
    pub(super) fn take(&self, kind: Kind) -> Option<Parts> {
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
    fn next(&self) -> Option<Next> {
        let mut state = self.state();
        if let Some(loaded) = state.twins.pop() {
            return Some(Next::Join(loaded));
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
                missing = Some(Next::Make(*kind));
            }
        }
        let surplus = std::mem::replace(made, kept);
        state.is_filling = missing.is_some();
        drop(state);
        drop(surplus);
        missing
    }

    /// Puts one into the stock. It goes where nothing is steered any more.
    fn put(&self, kind: Kind, parts: Parts) {
        let mut state = self.state();
        if state.steered > 0 {
            state.made.push((kind, parts));
        }
    }

    /// Waits until nobody has asked for a moment.
    fn wait_for_quiet(&self) {
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

    fn begin_to_fill(&self) -> bool {
        let mut state = self.state();
        state.asked > 1 && !std::mem::replace(&mut state.is_filling, true)
    }
}

/// One namespace that is steered.
#[derive(Debug)]
pub(super) struct Steered(Arc<Shared>);

impl Steered {
    /// From now on. Where its rule set is one that another namespace has too, the map of that one takes the place of its own.
    pub(super) fn begin(shared: &Arc<Shared>, loaded: &Arc<Mutex<Loaded>>, has_twin: HasTwin) -> Self {
        let stock = &shared.stock;
        {
            let mut state = stock.state();
            state.steered += 1;
            if has_twin == HasTwin::Yes {
                state.twins.push(Arc::downgrade(loaded));
            }
        }
        if stock.begin_to_fill() {
            let filled = Arc::clone(shared);
            let filler = thread::Builder::new().name("stock".into()).spawn(move || fill(&filled));
            if let Err(error) = filler {
                not_filled(shared, &error);
            }
        }
        Self(Arc::clone(shared))
    }
}

/// Whether the rule set in force is one that another namespace has in another map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasTwin {
    Yes,
    No,
}

impl Drop for Steered {
    fn drop(&mut self) {
        let mut state = self.0.stock.state();
        state.steered -= 1;
        let made = if state.steered == 0 { std::mem::take(&mut state.made) } else { Vec::new() };
        drop(state);
        drop(made);
    }
}

/// Makes what is missing.
fn fill(shared: &Shared) {
    let stock = &shared.stock;
    loop {
        stock.wait_for_quiet();
        match stock.next() {
            None => return,
            Some(Next::Join(loaded)) => {
                if let Some(loaded) = loaded.upgrade() {
                    let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Err(error) = loaded.join_twin() {
                        tracing::warn!(%error, "share a rule set with another namespace; goes on with a copy");
                    }
                }
            }
            Some(Next::Make(kind)) => match Parts::blank(shared, kind.shape, kind.counted) {
                Ok(parts) => stock.put(kind, parts),
                Err(error) => {
                    not_filled(shared, &error);
                    return;
                }
            },
        }
    }
}

fn not_filled(shared: &Shared, error: &dyn std::error::Error) {
    shared.stock.state().is_filling = false;
    tracing::debug!(%error, "make kernel programs ahead; the next attach makes its own");
}
