//! Rules of a file that are in the way of one another, or of somebody else's.

use std::collections::HashMap;

use super::{Wanted, flaw, plan::Planner};
use crate::{
    config::{Container, Origin, Prune, RuleName, Target},
    control::{Code, Error},
    netns::NetnsCookie,
    supervisor::rules::RuleState,
};

impl Planner<'_> {
    /// Entries that mean one namespace may want the same there, each for its container: that is one rule.
    pub(super) fn without_twins(
        &mut self,
        target: &Target,
        wanted: impl Iterator<Item = Wanted>,
    ) -> Vec<Wanted> {
        let mut known: HashMap<RuleName, usize> = HashMap::new();
        let mut kept: Vec<Wanted> = Vec::new();
        for mut one in wanted {
            let Some(index) = known.get(&one.rule.name) else {
                known.insert(one.rule.name.clone(), kept.len());
                kept.push(one);
                continue;
            };
            let first = &mut kept[*index];
            // What ends with a found container must not take along what the file has there in any case.
            let is_bound = |wanted: &Wanted| wanted.follows.iter().all(|follower| follower.discovered);
            let is_free = first.follows.is_empty() && !one.follows.is_empty() && is_bound(&one);
            if first.rule.is_like(&one.rule) && !is_free {
                // What names a container itself comes before what has found it.
                one.follows.retain(|new| first.containers().all(|known| *known != new.container));
                first.follows.append(&mut one.follows);
                continue;
            }
            let has =
                if is_free { "the file has that rule there itself" } else { "has another rule of that name" };
            let message = format!("rule `{}`: `{target}` is the same namespace, and {has}", one.rule.name);
            let error = Error::new(Code::Failed, message).with_hint("give one of them another name");
            self.refused.push(flaw(one.at.0, Some(one.at.1), error));
        }
        kept
    }

    pub(super) fn refuse_clash(&mut self, target: &Target, there: &RuleState, wanted: &Wanted) {
        let name = &there.rule.name;
        let error = if there.is_lease() {
            let message =
                format!("rule `{name}`: in `{target}` a program has listeners by a rule of that name");
            Error::new(Code::Failed, message).with_hint("take another name, or end that program")
        } else {
            of_attach(target, name)
        };
        self.refused.push(flaw(wanted.at.0, Some(wanted.at.1), error));
    }

    /// A rule of `attach` that follows the same container and is not where this one will be, or which this one would wait
    /// instead of, is in its way too.
    pub(super) fn refuse_to_take_over(&mut self, at: Option<NetnsCookie>, wanted: &Wanted) {
        let name = &wanted.rule.name;
        let is_in_the_way = |container: &&Container| {
            let key = ((*container).clone(), name.clone());
            self.followed.get(&key).is_some_and(|known| {
                let is_elsewhere = at.is_none() || known.at != at;
                known.origin == Origin::Api && is_elsewhere && known.spec != wanted.rule.to_spec()
            })
        };
        if self.request.prune == Prune::No
            && let Some(container) = wanted.containers().find(is_in_the_way)
        {
            let error = of_attach(&Target::Container(container.clone()), name);
            self.refused.push(flaw(wanted.at.0, Some(wanted.at.1), error));
        }
    }
}

/// A rule that a file may not change.
fn of_attach(target: &Target, name: &RuleName) -> Error {
    let message = format!("rule `{name}`: in `{target}` there is one of `attach` that says something else");
    Error::new(Code::Failed, message).with_hint("detach it, take another name, or add `--prune`")
}
