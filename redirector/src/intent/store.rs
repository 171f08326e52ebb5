//! Every rule that is wanted.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};

use super::{Intended, Subject};
use crate::{
    config::{Container, Engine, Origin, RuleName, RuleSpec, Target},
    locate::ContainerId,
    netns::NetnsCookie,
};

/// By subject and name. A copy of it shares all that does not become other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    rules: BTreeMap<Subject, Rules>,
    /// For which targets there is a rule of a name in a namespace. What is for the namespace itself is there.
    followed: BTreeMap<NetnsCookie, Arc<Followed>>,
}

type Rules = Arc<BTreeMap<RuleName, Intended>>;

type Followed = BTreeMap<RuleName, BTreeSet<Target>>;

/// What is wanted in one namespace. Who asks for each of its rules looks for the namespace once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here<'a> {
    store: &'a Store,
    /// What is for the namespace itself.
    bound: Option<(&'a Subject, &'a Rules)>,
    followed: Option<&'a Followed>,
}

impl<'a> Here<'a> {
    /// For whom a rule of a name is there: one that several targets have led to is for several.
    pub(crate) fn at(self, name: &RuleName) -> impl Iterator<Item = (&'a Subject, &'a Intended)> {
        let bound = self.bound.and_then(|(subject, rules)| Some((subject, look_up(rules, name)?)));
        let targets = self.followed.and_then(|names| names.get(name)).into_iter().flatten();
        let name = name.clone();
        bound.into_iter().chain(targets.filter_map(move |target| {
            let (subject, rules) = self.store.rules.get_key_value(&Subject::from(target))?;
            Some((subject, look_up(rules, &name)?))
        }))
    }

    /// The targets that it follows.
    pub(crate) fn owners(self, name: &RuleName) -> Vec<Target> {
        self.at(name).filter_map(|(subject, _)| subject.target().cloned()).collect()
    }

    /// Who has made a rule that is there; `None` where nobody wants it.
    pub(crate) fn origin(self, name: &RuleName) -> Option<Origin> {
        let rank = |origin: &Origin| match origin {
            Origin::Lease => 0,
            Origin::File => 1,
            Origin::Api => 2,
        };
        self.at(name).map(|(_, one)| one.origin).min_by_key(rank)
    }

    /// Whether a rule is there only because containers were found by a label.
    pub(crate) fn is_found(self, name: &RuleName) -> bool {
        let mut here = self.at(name).peekable();
        here.peek().is_some() && here.all(|(_, one)| one.is_found())
    }
}

fn look_up<'a>(rules: &'a Rules, name: &RuleName) -> Option<&'a Intended> {
    #[cfg(test)]
    looks::count();
    rules.get(name)
}

/// How often a rule was looked for: what a question costs, whatever the machine.
#[cfg(test)]
pub(crate) mod looks {
    use std::cell::Cell;

    thread_local!(static LOOKS: Cell<usize> = const { Cell::new(0) });

    pub(super) fn count() {
        LOOKS.set(LOOKS.get() + 1);
    }

    /// Since the last time, in this thread.
    pub(crate) fn taken() -> usize {
        LOOKS.take()
    }
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

    /// The targets that it has rules for.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.put.iter().filter_map(|(subject, _)| subject.target())
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
        look_up(self.rules.get(subject)?, name)
    }

    /// What is wanted in a namespace.
    pub(crate) fn here(&self, place: NetnsCookie) -> Here<'_> {
        let bound = self.rules.get_key_value(&Subject::Netns(place));
        Here { store: self, bound, followed: self.followed.get(&place).map(Arc::as_ref) }
    }

    /// The rule of this name that follows a target, or waits for it.
    pub(crate) fn followed(&self, target: &Target, name: &RuleName) -> Option<&Intended> {
        self.get(&target.into(), name)
    }

    /// The rules for one subject.
    pub(crate) fn of(&self, subject: &Subject) -> impl Iterator<Item = (&RuleName, &Intended)> {
        self.rules.get(subject).into_iter().flat_map(|rules| rules.iter())
    }

    /// Every rule that follows a target, or waits for it.
    pub(crate) fn following(&self) -> impl Iterator<Item = (&Target, &Intended)> {
        let all = self.of_targets();
        all.flat_map(|(target, rules)| rules.values().map(move |one| (target, one)))
    }

    fn of_targets(&self) -> impl Iterator<Item = (&Target, &Rules)> {
        // Namespaces come before them.
        let others = (Bound::Excluded(Subject::Netns(NetnsCookie(u64::MAX))), Bound::Unbounded);
        let others = self.rules.range(others);
        others.filter_map(|(subject, rules)| Some((subject.target()?, rules)))
    }

    /// Whether rules follow, or wait for, a target that is no container.
    pub(crate) fn has_names(&self) -> bool {
        self.of_targets().any(|(target, _)| target.container().is_none())
    }

    /// The targets other than containers that rules follow, or wait for, with where those are.
    pub(crate) fn names(&self) -> BTreeMap<Target, BTreeSet<Option<NetnsCookie>>> {
        let mut names = BTreeMap::<_, BTreeSet<_>>::new();
        for (target, one) in self.following().filter(|(target, _)| target.container().is_none()) {
            names.entry(target.clone()).or_default().insert(one.at);
        }
        names
    }

    /// The containers of an engine that rules follow, as far as something is true of one of these.
    pub(crate) fn containers(
        &self,
        engine: Engine,
        concerns: impl Fn(&Container, Option<&ContainerId>) -> bool,
    ) -> BTreeSet<Target> {
        let containers = self.following().filter_map(|(target, one)| Some((target.container()?, one)));
        let of_engine = containers.filter(|(container, _)| container.engine == engine);
        let concerned = of_engine.filter(|(container, one)| concerns(container, one.id()));
        concerned.map(|(container, _)| container.into()).collect()
    }

    /// As [`Here::at`].
    pub(crate) fn at(
        &self,
        place: NetnsCookie,
        name: &RuleName,
    ) -> impl Iterator<Item = (&Subject, &Intended)> {
        self.here(place).at(name)
    }

    /// As [`Here::owners`].
    pub(crate) fn owners(&self, place: NetnsCookie, name: &RuleName) -> Vec<Target> {
        self.here(place).owners(name)
    }

    /// Whether somebody wants it there, and nobody because of a target that leads there.
    pub(crate) fn is_bound(&self, place: NetnsCookie, name: &RuleName) -> bool {
        let mut here = self.at(place, name).peekable();
        here.peek().is_some() && here.all(|(subject, _)| subject.target().is_none())
    }

    /// As [`Here::origin`].
    pub(crate) fn origin(&self, place: NetnsCookie, name: &RuleName) -> Option<Origin> {
        self.here(place).origin(name)
    }

    /// The namespaces where rules are that somebody `goes` has made.
    pub(crate) fn places(&self, goes: impl Fn(Origin) -> bool) -> BTreeSet<NetnsCookie> {
        let at = |one: &Intended| one.at.filter(|_| goes(one.origin));
        // What is for a namespace is there.
        self.rules.values().flat_map(|rules| rules.values().filter_map(at)).collect()
    }

    /// The targets that a rule of one of these names follows.
    pub(crate) fn namesakes(&self, names: &[RuleName]) -> BTreeSet<Target> {
        let namesakes = self.following().filter(|(_, one)| names.contains(&one.rule.name));
        namesakes.map(|(target, _)| target.clone()).collect()
    }

    /// A name for a rule that has none and is to follow a target: that of one that says the same, else `rule-N`, the lowest
    /// N that is free.
    pub(crate) fn name_for(&self, target: &Target, spec: &RuleSpec) -> RuleName {
        let rules = self.rules.get(&target.into()).map(Arc::as_ref);
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

    /// A namespace has died: what was for it is not wanted any more, and what follows a target waits. Gives the targets.
    pub(crate) fn bury(&mut self, place: NetnsCookie) -> BTreeSet<Target> {
        self.rules.remove(&Subject::Netns(place));
        let followed = self.followed.remove(&place).map(Arc::unwrap_or_clone).unwrap_or_default();
        let mut waiting = BTreeSet::new();
        for (name, target) in
            followed.into_iter().flat_map(|(name, all)| all.into_iter().map(move |one| (name.clone(), one)))
        {
            let rules = self.rules.get_mut(&Subject::from(&target));
            if let Some(one) = rules.and_then(|rules| Arc::make_mut(rules).get_mut(&name)) {
                one.at = None;
                if let Some(follows) = &mut one.follows {
                    follows.why = "its namespace has ended".into();
                }
            }
            waiting.insert(target);
        }
        waiting
    }

    /// What keeps rules of a target waiting, as far as they do.
    pub(crate) fn wait_because(&mut self, target: &Target, rule: Option<&RuleName>, why: &str) {
        let Some(rules) = self.rules.get_mut(&target.into()) else { return };
        let rules = Arc::make_mut(rules).iter_mut();
        let meant = rules.filter(|(name, _)| rule.is_none_or(|rule| rule == *name));
        for follows in meant.filter_map(|(_, one)| one.follows.as_mut()) {
            why.clone_into(&mut follows.why);
        }
    }

    fn insert(&mut self, subject: Subject, intended: Intended) {
        let name = intended.rule.name.clone();
        self.remove(&subject, &name);
        if let (Some(place), Some(target)) = (intended.at, subject.target()) {
            let here = Arc::make_mut(self.followed.entry(place).or_default());
            here.entry(name.clone()).or_default().insert(target.clone());
        }
        Arc::make_mut(self.rules.entry(subject).or_default()).insert(name, intended);
    }

    fn remove(&mut self, subject: &Subject, name: &RuleName) {
        let Some(place) = self.forget(subject, name).and_then(|one| one.at) else { return };
        let Some(target) = subject.target() else { return };
        let Some(followed) = self.followed.get_mut(&place) else { return };
        let names = Arc::make_mut(followed);
        if let Some(here) = names.get_mut(name) {
            here.remove(target);
            if here.is_empty() {
                names.remove(name);
            }
        }
        if names.is_empty() {
            self.followed.remove(&place);
        }
    }

    /// Takes one out, and leaves where it was to whoever calls.
    fn forget(&mut self, subject: &Subject, name: &RuleName) -> Option<Intended> {
        let shared = self.rules.get_mut(subject)?;
        let rules = Arc::make_mut(shared);
        let gone = rules.remove(name);
        if rules.is_empty() {
            self.rules.remove(subject);
        }
        gone
    }
}

#[cfg(test)]
mod tests;
