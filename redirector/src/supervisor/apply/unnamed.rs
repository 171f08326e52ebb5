//! Namespaces that a file does not mean, and rules that stay where they are while they wait.

use std::sync::Arc;

use super::{Waits, Wanted, part::Part, plan::Planner};
use crate::{
    config::{Origin, Prune},
    netns::NetnsCookie,
    supervisor::{namespace::Namespace, rules::RuleState},
};

impl Planner<'_> {
    /// Whether a rule stays in a namespace until the one that waits for its container can come.
    pub(super) fn stays(&self, at: NetnsCookie, there: &RuleState, waiting: &[(Waits, Wanted)]) -> bool {
        let owners = self.owners(at, &there.rule.name);
        waiting.iter().any(|(waits, one)| {
            // That of a container that was found is changed when it can be.
            let may_stay = one.rule.is_like(&there.rule) || self.request.discovered(waits.entry).is_some();
            one.rule.name == there.rule.name
                && may_stay
                && one.containers().any(|container| owners.contains(container))
        })
    }

    /// Notes which of the rules that are left in a namespace wait all the same.
    pub(super) fn note_left<'b>(
        &mut self,
        at: NetnsCookie,
        rules: impl Iterator<Item = &'b RuleState>,
        waiting: &[(Waits, Wanted)],
    ) {
        let left: Vec<_> = rules.filter(|state| self.stays(at, state, waiting)).collect();
        self.left.extend(left.into_iter().map(|state| (at, state.rule.name.clone())));
    }

    /// A namespace that the file does not mean, unless its container is not running and it lives on.
    pub(super) fn compare_unnamed(&mut self, netns: &Arc<Namespace>, waiting: &[(Waits, Wanted)]) {
        let current = netns.published.load().current.rules().to_vec();
        let goes = |state: &RuleState| match state.origin() {
            Origin::File => true,
            Origin::Api => self.request.prune == Prune::Api,
            Origin::Lease => false,
        };
        let (gone, rules): (Vec<_>, Vec<_>) =
            current.into_iter().partition(|state| goes(state) && !self.stays(netns.cookie, state, waiting));
        self.note_left(netns.cookie, rules.iter().map(|state| &**state), waiting);
        if gone.is_empty() {
            return;
        }
        for state in &gone {
            let owners = self.owners(netns.cookie, &state.rule.name);
            let waits_otherwise = waiting.iter().any(|(_, one)| {
                one.rule.name == state.rule.name
                    && one.containers().any(|container| owners.contains(container))
            });
            // Else it is said where it waits.
            if !waits_otherwise {
                self.remove(&netns.target, netns.cookie, state);
            }
        }
        self.plan.parts.push(Part {
            target: netns.target.clone(),
            entry: None,
            blamed: None,
            netns: Some(Arc::clone(netns)),
            found: None,
            foreign: None,
            rules,
            table: None,
            is_other: true,
            new: Vec::new(),
            kept: Vec::new(),
            reset: (Vec::new(), Vec::new()),
        });
    }
}
