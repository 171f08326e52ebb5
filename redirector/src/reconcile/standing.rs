//! What is in force in one namespace when a change is planned. A plan needs no more of it, so that it can be made of anything.

use std::{collections::HashSet, sync::Arc};

use redirector_ebpf::{CONSUMER_RELAY, MAX_CONSUMERS, MAX_RULES};

use crate::{
    config::{Rule, RuleName, Target},
    netns::NetnsCookie,
    steer::{RuleState, Steered},
};

/// A namespace that is steered.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) cookie: NetnsCookie,
    /// As it was first named.
    pub(crate) target: Target,
    /// By name.
    pub(crate) rules: Vec<Arc<RuleState>>,
    /// Its program, as far as the kernel tells.
    pub(crate) program: Option<u32>,
}

impl From<&Arc<Steered>> for Standing {
    fn from(netns: &Arc<Steered>) -> Self {
        Self {
            cookie: netns.cookie,
            target: netns.target.clone(),
            rules: netns.published.load().current.rules().to_vec(),
            program: netns.instance.link_info().and_then(Result::ok).map(|link| link.program_id),
        }
    }
}

impl Standing {
    pub(crate) fn get(&self, name: &RuleName) -> Option<&Arc<RuleState>> {
        self.rules.iter().find(|state| state.rule.name == *name)
    }

    /// One that says the same, whatever its name is; none of a lease.
    pub(crate) fn like(&self, rule: &Rule) -> Option<&Arc<RuleState>> {
        self.rules.iter().find(|state| !state.is_lease() && state.rule.is_like(rule))
    }

    /// The lowest consumer that no rule here has, the relay's apart.
    pub(crate) fn free_consumer(&self) -> Option<u32> {
        let taken: HashSet<_> = self.rules.iter().map(|state| state.consumer).collect();
        (CONSUMER_RELAY + 1..MAX_CONSUMERS as u32).find(|consumer| !taken.contains(consumer))
    }
}

/// Indices into the counters for new rules, the lowest first, and whether nobody has them; at the end those of rules that go.
pub(crate) fn free_indices(
    current: &[Arc<RuleState>],
    removed: Vec<u32>,
) -> impl Iterator<Item = (u32, bool)> + use<> {
    let taken: HashSet<_> = current.iter().map(|state| state.index).collect();
    let free = (0..MAX_RULES as u32).filter(move |index| !taken.contains(index)).map(|index| (index, true));
    free.chain(removed.into_iter().map(|index| (index, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        intent::testing::{check, name, rule},
        reconcile::testing::Scene,
    };

    /// Each line: what is in force, a rule, the one that says the same.
    #[test]
    fn a_rule_is_like_another_that_says_the_same_whatever_its_name_and_never_like_a_lease() {
        let cases = [
            ["7 a 80 api", "80", "a"],
            ["7 a 80 api", "81", ""],
            ["7 a 80 api; 7 b 80 api", "80", "a"],
            ["7 a 80>pass api", "80", ""],
            ["7 a 80~ api", "80", ""],
            ["7 a 80%eth0 api", "80%eth0", "a"],
            ["7 a 80>handoff lease", "80>handoff", ""],
        ];
        check(&cases, |case| {
            let scene = Scene::of(case[0]);
            let like = scene.standing(7).unwrap().like(&rule("x", case[1]));
            like.map(|state| state.rule.name.to_string()).unwrap_or_default()
        });
    }

    #[test]
    fn numbers_that_nobody_has_come_first_the_lowest_before_all_and_then_those_that_go() {
        let scene = Scene::of("7 a 1 api; 7 b 2 api; 7 c 3 api");
        let mut rules = scene.standing(7).unwrap().rules.clone();
        rules.remove(1);
        let first: Vec<_> = free_indices(&rules, vec![0]).take(3).collect();
        assert_eq!(first, [(1, true), (3, true), (4, true)]);
        let full = Scene::full_but(7, 1);
        let rules = &full.standing(7).unwrap().rules;
        let last = MAX_RULES as u32 - 1;
        assert_eq!(
            free_indices(rules, vec![5, 2]).collect::<Vec<_>>(),
            [(last, true), (5, false), (2, false)]
        );
        assert_eq!(free_indices(&[], Vec::new()).count(), MAX_RULES);
        assert!(scene.standing(7).unwrap().get(&name("c")).is_some());
    }
}
