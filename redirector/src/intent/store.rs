//! Every rule that is wanted.

use std::collections::{BTreeMap, BTreeSet};

use super::{Intended, Subject};
use crate::{
    config::{Container, Engine, Origin, RuleName, RuleSpec},
    locate::ContainerId,
    netns::NetnsCookie,
};

/// By subject and name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    rules: BTreeMap<Subject, BTreeMap<RuleName, Intended>>,
    /// For whom there is a rule of a name in a namespace.
    places: BTreeMap<NetnsCookie, BTreeMap<RuleName, BTreeSet<Subject>>>,
}

/// A change of what is wanted: what goes, then what comes.
#[derive(Debug, Default)]
pub(crate) struct Edit {
    pub(crate) drop: BTreeSet<(Subject, RuleName)>,
    pub(crate) put: Vec<(Subject, Intended)>,
}

impl Edit {
    /// A rule is not wanted any more.
    pub(crate) fn drop(&mut self, subject: impl Into<Subject>, name: &RuleName) {
        self.drop.insert((subject.into(), name.clone()));
    }

    /// The containers that it has rules for.
    pub(crate) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.put.iter().filter_map(|(subject, _)| subject.container())
    }

    /// Whether it has a rule of this name for a subject.
    pub(crate) fn has(&self, subject: &Subject, name: &RuleName) -> bool {
        self.put.iter().any(|(one, intended)| one == subject && intended.rule.name == *name)
    }

    /// A rule is wanted.
    pub(crate) fn put(&mut self, subject: impl Into<Subject>, intended: Intended) {
        self.put.push((subject.into(), intended));
    }
}

impl Store {
    pub(crate) fn get(&self, subject: &Subject, name: &RuleName) -> Option<&Intended> {
        self.rules.get(subject)?.get(name)
    }

    /// The rule of this name that follows a container.
    pub(crate) fn followed(&self, container: &Container, name: &RuleName) -> Option<&Intended> {
        self.get(&container.into(), name)
    }

    /// The rules for one subject.
    pub(crate) fn of(&self, subject: &Subject) -> impl Iterator<Item = (&RuleName, &Intended)> {
        self.rules.get(subject).into_iter().flatten()
    }

    /// Every rule that follows a container.
    pub(crate) fn following(&self) -> impl Iterator<Item = (&Container, &Intended)> {
        let all = self.rules.iter().filter_map(|(subject, rules)| Some((subject.container()?, rules)));
        all.flat_map(|(container, rules)| rules.values().map(move |one| (container, one)))
    }

    /// The containers of an engine that rules follow, as far as something is true of one of these.
    pub(crate) fn containers(
        &self,
        engine: Engine,
        concerns: impl Fn(&Container, Option<&ContainerId>) -> bool,
    ) -> BTreeSet<Container> {
        let of_engine = self.following().filter(|(container, _)| container.engine == engine);
        let concerned = of_engine.filter(|(container, one)| concerns(container, one.id()));
        concerned.map(|(container, _)| container.clone()).collect()
    }

    /// For whom a rule of a name is in a namespace: one that several names of a container have led to is for several.
    pub(crate) fn at(
        &self,
        place: NetnsCookie,
        name: &RuleName,
    ) -> impl Iterator<Item = (&Subject, &Intended)> {
        let subjects = self.places.get(&place).and_then(|names| names.get(name)).into_iter().flatten();
        subjects.filter_map(|subject| Some((subject, self.get(subject, name)?)))
    }

    /// The containers that it follows.
    pub(crate) fn owners(&self, place: NetnsCookie, name: &RuleName) -> Vec<Container> {
        self.at(place, name).filter_map(|(subject, _)| subject.container().cloned()).collect()
    }

    /// Whether somebody wants it there, and nobody because of a container.
    pub(crate) fn is_bound(&self, place: NetnsCookie, name: &RuleName) -> bool {
        let mut here = self.at(place, name).peekable();
        here.peek().is_some() && here.all(|(subject, _)| subject.container().is_none())
    }

    /// Who has made a rule that is in a namespace; `None` where nobody wants it.
    pub(crate) fn origin(&self, place: NetnsCookie, name: &RuleName) -> Option<Origin> {
        let origins = || self.at(place, name).map(|(_, one)| one.origin);
        let is = |origin| origins().any(|one| one == origin);
        [Origin::Lease, Origin::File, Origin::Api].into_iter().find(|origin| is(*origin))
    }

    /// The namespaces where rules are that somebody `goes` has made.
    pub(crate) fn places(&self, goes: impl Fn(Origin) -> bool) -> impl Iterator<Item = NetnsCookie> {
        let all = self.places.iter();
        let meant = all.filter(move |(_, names)| {
            let rules = names.iter().flat_map(|(name, subjects)| subjects.iter().map(move |one| (one, name)));
            let mut made = rules.filter_map(|(subject, name)| self.get(subject, name));
            made.any(|one| goes(one.origin))
        });
        meant.map(|(place, _)| *place)
    }

    /// Whether a rule is in a namespace only because containers there were found by a label.
    pub(crate) fn is_found(&self, place: NetnsCookie, name: &RuleName) -> bool {
        let mut here = self.at(place, name).peekable();
        here.peek().is_some() && here.all(|(_, one)| one.is_found())
    }

    /// The containers that a rule of one of these names follows.
    pub(crate) fn namesakes(&self, names: &[RuleName]) -> BTreeSet<Container> {
        let namesakes = self.following().filter(|(_, one)| names.contains(&one.rule.name));
        namesakes.map(|(container, _)| container.clone()).collect()
    }

    /// A name for a rule that has none and is to follow a container: that of one that says the same, else `rule-N`, the lowest
    /// N that is free.
    pub(crate) fn name_for(&self, container: &Container, spec: &RuleSpec) -> RuleName {
        let rules = self.rules.get(&container.into());
        let same = rules
            .into_iter()
            .flatten()
            .find(|(name, one)| spec.clone().named((*name).clone()).is_like(&one.rule));
        let is_free = |name: &RuleName| rules.is_none_or(|rules| !rules.contains_key(name));
        let free = || (1..).map(RuleName::numbered).find(is_free);
        same.map(|(name, _)| name.clone()).or_else(free).expect("there are few rules")
    }

    /// Whether nobody wants a rule in a namespace any more once this is changed.
    pub(crate) fn is_left(&self, place: NetnsCookie, name: &RuleName, edit: &Edit) -> bool {
        let stays = |subject: &Subject| {
            !edit.drop.contains(&(subject.clone(), name.clone())) && !edit.has(subject, name)
        };
        let comes = edit.put.iter().any(|(_, one)| one.at == Some(place) && one.rule.name == *name);
        !comes && !self.at(place, name).any(|(subject, _)| stays(subject))
    }

    /// Changes what is wanted.
    pub(crate) fn edit(&mut self, edit: Edit) {
        for (subject, name) in &edit.drop {
            self.remove(subject, name);
        }
        for (subject, intended) in edit.put {
            self.insert(subject, intended);
        }
    }

    /// A namespace has died: what was for it is not wanted any more, and what follows a container waits. Gives the containers.
    pub(crate) fn bury(&mut self, place: NetnsCookie) -> BTreeSet<Container> {
        let subjects = self.places.remove(&place).unwrap_or_default();
        let mut waiting = BTreeSet::new();
        for (name, subject) in
            subjects.into_iter().flat_map(|(name, all)| all.into_iter().map(move |one| (name.clone(), one)))
        {
            let Some(container) = subject.container().cloned() else {
                self.forget(&subject, &name);
                continue;
            };
            if let Some(one) = self.rules.get_mut(&subject).and_then(|rules| rules.get_mut(&name)) {
                one.at = None;
                if let Some(follows) = &mut one.follows {
                    follows.why = "its namespace has ended".into();
                }
            }
            waiting.insert(container);
        }
        waiting
    }

    /// What keeps rules of a container waiting, as far as they do.
    pub(crate) fn wait_because(&mut self, container: &Container, rule: Option<&RuleName>, why: &str) {
        let rules = self.rules.get_mut(&container.into()).into_iter().flatten();
        let meant = rules.filter(|(name, _)| rule.is_none_or(|rule| rule == *name));
        for follows in meant.filter_map(|(_, one)| one.follows.as_mut()) {
            why.clone_into(&mut follows.why);
        }
    }

    fn insert(&mut self, subject: Subject, intended: Intended) {
        let name = intended.rule.name.clone();
        self.remove(&subject, &name);
        if let Some(place) = intended.at {
            let here = self.places.entry(place).or_default().entry(name.clone()).or_default();
            here.insert(subject.clone());
        }
        self.rules.entry(subject).or_default().insert(name, intended);
    }

    fn remove(&mut self, subject: &Subject, name: &RuleName) {
        let Some(place) = self.forget(subject, name).and_then(|one| one.at) else { return };
        let Some(names) = self.places.get_mut(&place) else { return };
        if let Some(here) = names.get_mut(name) {
            here.remove(subject);
            if here.is_empty() {
                names.remove(name);
            }
        }
        if names.is_empty() {
            self.places.remove(&place);
        }
    }

    /// Takes one out, and leaves where it was to whoever calls.
    fn forget(&mut self, subject: &Subject, name: &RuleName) -> Option<Intended> {
        let rules = self.rules.get_mut(subject)?;
        let gone = rules.remove(name);
        if rules.is_empty() {
            self.rules.remove(subject);
        }
        gone
    }
}

#[cfg(test)]
mod tests;
