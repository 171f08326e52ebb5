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
            program: netns.instance.program_id().ok(),
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

    /// `rule-N` with the lowest N that is free.
    pub(crate) fn free_name(&self) -> RuleName {
        let taken: HashSet<_> = self.rules.iter().map(|state| &state.rule.name).collect();
        let mut names = (1..).map(RuleName::numbered);
        names.find(|name| !taken.contains(name)).expect("there are few rules")
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
