//! What is to be applied: what the file names, and the containers that it has looked for.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Follower, Refusal, Wanted, refuse_if_any};
use crate::{
    config::{Container, Engine, Prune, RuleName, RuleSpec, Target, file::NamespaceSpec},
    control::Error,
    supervisor::{attach::HostNetns, discover::AllFound},
    target::ContainerId,
};

/// All that is wanted.
pub(super) struct Request {
    /// Those of the file, then those of containers that were found.
    pub(super) namespaces: Vec<NamespaceSpec>,
    pub(super) prune: Prune,
    pub(super) dry_run: bool,
    /// The containers that were found.
    pub(super) found: AllFound,
    /// How many are of the file.
    of_file: usize,
    /// Of each of the others: the container.
    ids: Vec<(Engine, ContainerId)>,
    /// Those of them that cannot be in force now, and why.
    set_aside: HashMap<usize, String>,
}

impl Request {
    pub(super) fn new(
        mut namespaces: Vec<NamespaceSpec>,
        (prune, dry_run): (Prune, bool),
        found: AllFound,
    ) -> Self {
        let of_file = namespaces.len();
        // What the file says of a container itself goes before.
        let own: HashSet<(Container, RuleName)> = namespaces
            .iter()
            .filter_map(|spec| Some((spec, container(&spec.target)?)))
            .flat_map(|(spec, container)| names(&spec.rules).map(move |name| (container.clone(), name)))
            .collect();
        let mut ids = Vec::new();
        let all =
            found.iter().flat_map(|(engine, found)| found.iter().map(move |(id, one)| (*engine, id, one)));
        for (engine, id, one) in all {
            let rules = one.rules.iter().map(|(_, rule)| rule.clone());
            let is_own = |rule: &RuleSpec| {
                rule.name.clone().is_some_and(|name| own.contains(&(one.container.clone(), name)))
            };
            let rules: Vec<_> = rules.filter(|rule| !is_own(rule)).collect();
            let target = Target::Container(one.container.clone());
            namespaces.push(NamespaceSpec { target, follow: None, host_netns: false, rules });
            ids.push((engine, id.clone()));
        }
        Self { namespaces, prune, dry_run, found, of_file, ids, set_aside: HashMap::new() }
    }

    /// The container that an entry is about, where it was found by a label.
    pub(super) fn discovered(&self, entry: usize) -> Option<&ContainerId> {
        self.ids.get(entry.checked_sub(self.of_file)?).map(|(_, id)| id)
    }

    /// Why an entry is not to be in force now.
    pub(super) fn is_set_aside(&self, entry: usize) -> Option<&str> {
        self.set_aside.get(&entry).map(String::as_str)
    }

    /// Nothing that is wrong with a container that was found keeps others from having their rules. Gives what is wrong with
    /// the file itself.
    ///
    /// # Errors
    ///
    /// That.
    pub(super) fn set_aside(&mut self, error: Error) -> Result<(), Error> {
        let (others, of_file): (Vec<Refusal>, Vec<Refusal>) =
            error.problems.iter().cloned().partition(|problem| problem.namespace >= self.of_file);
        if !of_file.is_empty() || others.is_empty() {
            return if others.is_empty() { Err(error) } else { refuse_if_any(of_file) };
        }
        for Refusal { namespace: entry, message, .. } in others {
            if self.set_aside.insert(entry, message.clone()).is_none() {
                continue;
            }
            // It cannot even wait.
            self.namespaces[entry].rules.clear();
            let (engine, id) = &self.ids[entry - self.of_file];
            let one = self.found.get_mut(engine).and_then(|found| found.get_mut(id));
            for why in one.into_iter().flat_map(|one| one.by.values_mut()).take(1) {
                why.push(message.clone());
            }
        }
        Ok(())
    }

    /// What is wrong with containers that were found, a sentence each.
    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        let all = self.found.values().flat_map(BTreeMap::values);
        let wrong =
            all.flat_map(|one| one.by.values().flatten().map(move |why| format!("{}: {why}", one.container)));
        let aside = self.set_aside.iter().filter(|(entry, _)| !self.namespaces[**entry].rules.is_empty());
        let aside = aside.map(|(entry, why)| format!("{}: waits: {why}", self.namespaces[*entry].target));
        wrong.chain(aside)
    }

    /// The rules that one entry wants, and the container that it leads to.
    pub(super) fn wanted_by(&self, entry: usize, id: Option<&ContainerId>) -> impl Iterator<Item = Wanted> {
        let spec = &self.namespaces[entry];
        let container = container(&spec.target).filter(|_| spec.follows()).cloned();
        let host_netns = if spec.host_netns { HostNetns::Allowed } else { HostNetns::Refused };
        let (id, discovered) = (id.cloned(), self.discovered(entry).is_some());
        spec.rules().enumerate().map(move |(rule, spec)| {
            let follower =
                container.clone().map(|container| Follower { container, id: id.clone(), discovered });
            Wanted { at: (entry, rule), rule: spec, follows: follower.into_iter().collect(), host_netns }
        })
    }

    /// The containers that were found, each with the rules that follow it from now on.
    pub(super) fn placed(&self) -> AllFound {
        let mut found = self.found.clone();
        for ((engine, id), spec) in self.ids.iter().zip(&self.namespaces[self.of_file..]) {
            let one = found.get_mut(engine).and_then(|found| found.get_mut(id));
            one.into_iter().for_each(|one| one.placed = names(&spec.rules).collect());
        }
        found
    }
}

fn container(target: &Target) -> Option<&Container> {
    match target {
        Target::Container(container) => Some(container),
        _ => None,
    }
}

fn names(rules: &[RuleSpec]) -> impl Iterator<Item = RuleName> {
    rules.iter().filter_map(|rule| rule.name.clone())
}
