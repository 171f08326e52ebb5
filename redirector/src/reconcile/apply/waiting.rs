//! Rules of a file that wait: their target is not there, or they cannot be in force where it leads. Pure.

use std::collections::HashMap;

use super::wanted::{Waits, Wanted};
use crate::{
    config::{RuleName, Target},
    steer::RuleState,
};

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    list: Vec<(Waits, Wanted)>,
    by_name: HashMap<RuleName, Vec<usize>>,
}

impl Waiting {
    pub(super) fn new(list: Vec<(Waits, Wanted)>) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for (index, (_, one)) in list.iter().enumerate() {
            by_name.entry(one.rule.name.clone()).or_default().push(index);
        }
        Self { list, by_name }
    }

    pub(super) fn all(&self) -> &[(Waits, Wanted)] {
        &self.list
    }

    /// Those that have a rule's name and follow one of the targets that it follows.
    fn namesakes<'a>(
        &'a self,
        name: &RuleName,
        owners: &'a [Target],
    ) -> impl Iterator<Item = &'a (Waits, Wanted)> {
        let named = self.by_name.get(name).into_iter().flatten().map(|index| &self.list[*index]);
        named.filter(|(_, one)| one.targets().any(|target| owners.contains(target)))
    }

    /// Whether a rule that follows these waits, as it is or otherwise.
    pub(super) fn has(&self, name: &RuleName, owners: &[Target]) -> bool {
        self.namesakes(name, owners).next().is_some()
    }

    /// Whether a rule stays in a namespace until the one that waits for its target can come: it says the same, or it is that
    /// of a container that was found, or of a target of which nothing is known, which is changed when it can be.
    pub(super) fn keeps(
        &self,
        there: &RuleState,
        owners: &[Target],
        is_found: impl Fn(usize) -> bool,
    ) -> bool {
        let mut namesakes = self.namesakes(&there.rule.name, owners);
        namesakes
            .any(|(waits, one)| one.rule.is_like(&there.rule) || waits.is_unknown || is_found(waits.entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dial::Whereabouts,
        intent::testing::{check, name, rule, target},
        reconcile::apply::testing::File,
    };

    /// Each line: what waits, the rule that is in force, whom it follows; whether one of the name waits for one of these, and whether
    /// it stays until that comes.
    #[test]
    fn a_rule_stays_until_the_one_that_waits_comes_where_both_say_the_same() {
        let cases = [
            ["docker:web=1@- a 80", "a 80", "docker:web", "waits stays"],
            ["docker:web=1@- a 81", "a 80", "docker:web", "waits"],
            ["docker:web=1@- a 80", "a 80", "docker:other", ""],
            ["docker:web=1@- a 80", "a 80", "podman:web", ""],
            ["docker:web=1@- a 80", "b 80", "docker:web", ""],
            ["docker:web=1@- a 80", "a 80", "", ""],
            ["docker:web=1@- a 80", "a 80", "docker:other docker:web", "waits stays"],
            ["docker:x=1@- a 81; docker:y=2@- a 80", "a 80", "docker:x docker:y", "waits stays"],
            ["docker:x=1@- a 81; docker:y=2@- a 80", "a 80", "docker:x", "waits"],
            // What was found is changed when it can be.
            ["found docker:web=1@- a 81", "a 80", "docker:web", "waits stays"],
            // Nor is it known what becomes of one whose engine does not answer.
            ["docker:unknown=1@- a 81", "a 80", "docker:unknown", "waits stays"],
            ["docker:unknown=1@- a 81", "a 80", "docker:web", ""],
            // A name of `ip netns` is as good as that of a container.
            ["netns:n@- a 80", "a 80", "netns:n", "waits stays"],
            ["", "a 80", "docker:web", ""],
        ];
        check(&cases, |case| {
            let request = File::of(case[0], "").request;
            let of_entry = |entry: usize| request.waiting_by(entry).map(move |one| (entry, one));
            let all = (0..request.namespaces.len()).flat_map(of_entry);
            let list = all.map(|(entry, one)| {
                let follower = one.follows[0].clone();
                let is_unknown = case[0].contains("unknown");
                (Waits { entry, target: follower.target, id: None, why: String::new(), is_unknown }, one)
            });
            let waiting = Waiting::new(list.collect());
            let (named, says) = case[1].split_once(' ').unwrap();
            let owners: Vec<_> = case[2].split_whitespace().map(target).collect();
            let there = RuleState::new(rule(named, says), (0, 0), Whereabouts::default());
            let keeps = waiting.keeps(&there, &owners, |entry| request.discovered(entry).is_some());
            let told = [(waiting.has(&name(named), &owners), "waits"), (keeps, "stays")];
            let told: Vec<_> = told.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
            told.join(" ")
        });
    }
}
