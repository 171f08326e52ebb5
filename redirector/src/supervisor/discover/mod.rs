//! Containers that have rules because of a label, for as long as they run.
//!
//! What an engine says is turned into rules that follow their container: whatever puts those puts these. Here is only which
//! containers there are, and which rules each has.

mod gather;
mod looker;
mod settle;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use crate::{
    config::{Container, Engine, RuleName, RuleSpec, Target, file::DiscoverSpec},
    control::{DiscoverView, RefusedView},
    target::{ContainerId, Labels},
};

/// A container that was found.
#[derive(Clone, Debug)]
pub(super) struct Discovered {
    pub(super) container: Container,
    /// All of its rules, each with a name, and for which of those that are looked for it has it.
    pub(super) rules: Vec<(usize, RuleSpec)>,
    /// Those that follow it, or did until they were detached.
    pub(super) placed: BTreeSet<RuleName>,
    /// By which of those that are looked for it was found, and why it has no rules, or not all, for that.
    pub(super) by: BTreeMap<usize, Vec<String>>,
    labels: Labels,
    /// Of its image, where they had to be known.
    image: Option<Labels>,
}

/// What was found at each engine that answered.
pub(super) type AllFound = BTreeMap<Engine, BTreeMap<ContainerId, Discovered>>;

/// Which containers are looked for, and which there are.
#[derive(Debug, Default)]
pub(super) struct Discovery {
    state: Mutex<State>,
    /// Held from the question to an engine until what it says is acted on: no answer is acted on after a later one.
    turn: tokio::sync::Mutex<()>,
    asked: [Notify; Engine::ALL.len()],
    /// Containers that something has happened to since their engine was asked last.
    changed: Mutex<BTreeSet<(Engine, ContainerId)>>,
}

#[derive(Debug, Default)]
struct State {
    specs: Vec<DiscoverSpec>,
    found: AllFound,
    /// Why an engine does not tell.
    why: BTreeMap<Engine, String>,
}

impl Discovery {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is looked for.
    pub(super) fn specs(&self) -> Vec<DiscoverSpec> {
        self.state().specs.clone()
    }

    /// Whether containers of this engine are.
    pub(super) fn is_looking_at(&self, engine: Engine) -> bool {
        self.state().specs.iter().any(|spec| spec.of(engine).is_some())
    }

    /// Something has happened to a container: has its engine asked what there is now.
    pub(super) fn look_after(&self, engine: Engine, id: Option<&ContainerId>) {
        if self.is_looking_at(engine) {
            self.changed().extend(id.map(|id| (engine, id.clone())));
            self.look(engine);
        }
    }

    fn changed(&self) -> MutexGuard<'_, BTreeSet<(Engine, ContainerId)>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has an engine asked what there is now.
    pub(super) fn look(&self, engine: Engine) {
        self.asked[engine as usize].notify_one();
    }

    /// The turn of whoever changes what is looked for, where that matters.
    pub(super) async fn turn(&self, specs: &[DiscoverSpec]) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        if specs.is_empty() && self.state().specs.is_empty() {
            return None;
        }
        Some(self.turn.lock().await)
    }

    /// From now on this is looked for, and this was found.
    pub(super) fn replace(&self, specs: Vec<DiscoverSpec>, found: AllFound) {
        let mut state = self.state();
        state.specs = specs;
        state.found = found;
        let State { specs, why, .. } = &mut *state;
        why.retain(|engine, _| specs.iter().any(|spec| spec.of(*engine).is_some()));
        drop(state);
        // It may have changed since.
        Engine::ALL.into_iter().for_each(|engine| self.look(engine));
    }

    /// The containers that are known to run.
    fn known(&self, engine: Engine) -> BTreeMap<ContainerId, Discovered> {
        self.state().found.get(&engine).cloned().unwrap_or_default()
    }

    /// What is known of an engine that does not tell, for what is looked for from now on. Labels of its containers do not
    /// become rules without it, unless they have.
    fn recall(&self, engine: Engine, specs: &[DiscoverSpec]) -> BTreeMap<ContainerId, Discovered> {
        let State { specs: before, found, .. } = &*self.state();
        let recalled = found.get(&engine).into_iter().flatten().map(|(id, known)| {
            let mut one = Discovered { rules: Vec::new(), by: BTreeMap::new(), ..known.clone() };
            let of_engine =
                specs.iter().enumerate().filter_map(|(to, spec)| Some((to, spec, spec.of(engine)?)));
            for (to, spec, label) in of_engine {
                let from = before.iter().position(|before| before == spec);
                let why = match from.and_then(|from| Some((from, known.by.get(&from)?))) {
                    Some((from, why)) => {
                        let rules = known.rules.iter().filter(|(by, _)| *by == from);
                        one.rules.extend(rules.map(|(_, rule)| (to, rule.clone())));
                        why.clone()
                    }
                    None if label.is_of(&one.labels) && !spec.reads_labels() => {
                        one.with(to, spec.rules.clone()).err().unwrap_or_default()
                    }
                    None => continue,
                };
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
    pub(super) fn view(&self) -> Vec<DiscoverView> {
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
                engine: engine.to_string(),
                label: label.clone(),
                rules: if spec.reads_labels() { "labels" } else { "file" }.into(),
                containers: by_it.clone().count() as u64,
                refused: refused.collect(),
                why: state.why.get(&engine).cloned(),
            }
        });
        views.collect()
    }
}
