//! Containers that have rules because of a label, for as long as they run.
//!
//! What an engine says is turned into rules that follow their container: whatever puts those puts these. Here is only which
//! containers there are, and which rules each has.

mod gather;
mod looker;
mod own;
mod settle;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Mutex as Turn, MutexGuard as TurnGuard, Notify};

pub(crate) use self::{gather::gather_all, looker::discover, own::OwnRules};
use crate::{
    config::{Container, Engine, RuleName, RuleSpec, SetName, Target, file::DiscoverSpec},
    control::{DiscoverView, RefusedView, RulesIn},
    locate::{ContainerId, Labels},
};

/// A container that was found.
#[derive(Clone, Debug)]
pub(crate) struct Discovered {
    pub(crate) container: Container,
    /// All of its rules, each with a name, and for which of those that are looked for it has it.
    pub(crate) rules: Vec<(usize, RuleSpec)>,
    /// By which of those that are looked for it was found, and why it has no rules, or not all, for that.
    pub(crate) by: BTreeMap<usize, Vec<String>>,
    labels: Labels,
    /// Of its image, where they had to be known.
    image: Option<Labels>,
}

/// What was found at each engine.
pub(crate) type AllFound = BTreeMap<Engine, BTreeMap<ContainerId, Discovered>>;

/// Which containers are looked for, and which there are.
#[derive(Debug, Default)]
pub(crate) struct Discovery {
    state: Mutex<State>,
    engines: [AtEngine; Engine::ALL.len()],
}

#[derive(Debug, Default)]
struct State {
    specs: Vec<DiscoverSpec>,
    /// Of which set each of these is.
    sets: Vec<SetName>,
    /// What each set says of containers itself.
    own: BTreeMap<SetName, OwnRules>,
    found: AllFound,
    /// Rules that somebody has detached since the file was applied.
    detached: HashSet<(ContainerId, RuleName)>,
    /// Why an engine does not tell.
    why: BTreeMap<Engine, String>,
}

/// What is going on with one engine.
#[derive(Debug, Default)]
struct AtEngine {
    /// Held from the question to the engine until what it says is acted on: no answer is acted on after a later one.
    turn: Turn<()>,
    asked: Notify,
    /// Containers that something has happened to since it was asked last.
    changed: Mutex<BTreeSet<ContainerId>>,
}

impl Discovery {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, engine: Engine) -> &AtEngine {
        &self.engines[engine as usize]
    }

    /// What is looked for.
    pub(crate) fn specs(&self) -> Vec<DiscoverSpec> {
        self.state().specs.clone()
    }

    /// Whether containers of this engine are.
    pub(crate) fn is_looking_at(&self, engine: Engine) -> bool {
        self.state().specs.iter().any(|spec| spec.of(engine).is_some())
    }

    /// Has an engine asked what there is now.
    pub(crate) fn look(&self, engine: Engine) {
        self.at(engine).asked.notify_one();
    }

    /// Something has happened to a container: has its engine asked what there is now.
    pub(crate) fn look_after(&self, engine: Engine, id: Option<&ContainerId>) {
        if self.is_looking_at(engine) {
            self.at(engine).changed().extend(id.cloned());
            self.look(engine);
        }
    }

    /// The turn of whoever changes what is looked for at engines that it is looked for at, before or then.
    pub(crate) async fn turn(&self, specs: &[DiscoverSpec]) -> Vec<TurnGuard<'_, ()>> {
        let mut turns = Vec::new();
        for engine in Engine::ALL {
            if self.is_looking_at(engine) || specs.iter().any(|spec| spec.of(engine).is_some()) {
                turns.push(self.at(engine).turn.lock().await);
            }
        }
        turns
    }

    /// What sets have that `stay`: which containers are looked for, and what they say of containers themselves.
    pub(crate) fn of_sets(
        &self,
        stay: impl Fn(&SetName) -> bool,
    ) -> (Vec<(SetName, DiscoverSpec)>, OwnRules) {
        let state = self.state();
        let specs = state.sets.iter().cloned().zip(state.specs.iter().cloned());
        let own = state.own.iter().filter(|(set, _)| stay(set)).map(|(_, own)| own);
        (specs.filter(|(set, _)| stay(set)).collect(), own.fold(OwnRules::default(), OwnRules::and))
    }

    /// From now on this is looked for, and this was found. Of the sets that do not `stay`, this is what they say of containers
    /// themselves.
    pub(crate) fn replace(
        &self,
        specs: Vec<(SetName, DiscoverSpec)>,
        (stay, new): (impl Fn(&SetName) -> bool, BTreeMap<SetName, OwnRules>),
        found: AllFound,
    ) {
        let mut state = self.state();
        let (sets, specs): (Vec<_>, Vec<_>) = specs.into_iter().unzip();
        let mut own = std::mem::take(&mut state.own);
        own.retain(|set, _| stay(set));
        own.extend(new);
        for (engine, found) in &found {
            state.tell_refused(*engine, found);
        }
        let mut why = std::mem::take(&mut state.why);
        why.retain(|engine, _| specs.iter().any(|spec| spec.of(*engine).is_some()));
        *state = State { specs, sets, own, found, detached: HashSet::new(), why };
        drop(state);
        // It may have changed since.
        Engine::ALL.into_iter().for_each(|engine| self.look(engine));
    }

    /// Somebody has detached rules of containers that were found: they come back with the next file only.
    pub(crate) fn detached(&self, rules: impl IntoIterator<Item = (ContainerId, RuleName)>) {
        self.state().detached.extend(rules);
        // What was in the way of another may be gone.
        Engine::ALL
            .into_iter()
            .filter(|engine| self.is_looking_at(*engine))
            .for_each(|engine| self.look(engine));
    }

    /// The containers that are known to run.
    fn known(&self, engine: Engine) -> BTreeMap<ContainerId, Discovered> {
        self.state().found.get(&engine).cloned().unwrap_or_default()
    }

    /// What is known of an engine that does not tell, for what is looked for from now on. What labels say is known of
    /// containers that have had rules by them.
    fn recall(&self, engine: Engine, specs: &[DiscoverSpec]) -> BTreeMap<ContainerId, Discovered> {
        let State { specs: before, found, .. } = &*self.state();
        let recalled = found.get(&engine).into_iter().flatten().map(|(id, known)| {
            let mut one = Discovered { rules: Vec::new(), by: BTreeMap::new(), ..known.clone() };
            let of_engine =
                specs.iter().enumerate().filter_map(|(to, spec)| Some((to, spec, spec.of(engine)?)));
            for (to, spec, label) in of_engine.filter(|(.., label)| label.is_of(&known.labels)) {
                let rules: Vec<_> = if spec.reads_labels() {
                    let same = |one: &DiscoverSpec| one.reads_labels() && one.of(engine) == Some(label);
                    let from = before.iter().position(same);
                    let rules = known.rules.iter().filter(|(by, _)| Some(*by) == from);
                    rules.map(|(_, rule)| rule.clone()).collect()
                } else {
                    spec.rules.clone()
                };
                let why = one.with(to, rules).err().unwrap_or_default();
                one.by.insert(to, why);
            }
            (id.clone(), one)
        });
        recalled.filter(|(_, one)| !one.by.is_empty()).collect()
    }

    /// Why nothing is told. Whether that is news.
    fn is_deaf(&self, engine: Engine, why: Option<&str>) -> bool {
        let mut state = self.state();
        let before = match why {
            Some(why) => state.why.insert(engine, why.to_owned()),
            None => state.why.remove(&engine),
        };
        before.as_deref() != why
    }

    /// For `list`.
    pub(crate) fn view(&self) -> Vec<DiscoverView> {
        let state = self.state();
        let specs = state.specs.iter().enumerate();
        let of_engines = specs.flat_map(|(index, spec)| {
            Engine::ALL.into_iter().filter_map(move |engine| Some((index, spec, engine, spec.of(engine)?)))
        });
        let views = of_engines.map(|(index, spec, engine, label)| {
            let found = state.found.get(&engine);
            let found = found.into_iter().flatten();
            let by_it = found.filter_map(|(id, one)| Some((id, one, one.by.get(&index)?)));
            let refused =
                by_it.clone().filter(|(.., why)| !why.is_empty()).map(|(id, one, why)| RefusedView {
                    target: Target::Container(one.container.clone()),
                    container: id.to_string(),
                    why: why.clone(),
                });
            DiscoverView {
                engine,
                label: label.clone(),
                rules: if spec.reads_labels() { RulesIn::Labels } else { RulesIn::File },
                containers: by_it.clone().count() as u64,
                refused: refused.collect(),
                why: state.why.get(&engine).cloned(),
            }
        });
        views.collect()
    }
}

impl State {
    /// Logs what is wrong with containers that were found, each thing once.
    fn tell_refused(&self, engine: Engine, found: &BTreeMap<ContainerId, Discovered>) {
        let known = self.found.get(&engine);
        for (id, one) in found {
            let before = known.and_then(|known| known.get(id));
            let before: HashSet<_> = before.into_iter().flat_map(|one| one.by.values().flatten()).collect();
            for why in one.by.values().flatten().filter(|why| !before.contains(why)) {
                let target = &one.container;
                tracing::warn!(%target, why, "a container has its label, and no rules or not all for it");
            }
        }
    }
}

impl AtEngine {
    fn changed(&self) -> MutexGuard<'_, BTreeSet<ContainerId>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
