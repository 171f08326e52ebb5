//! Rules that wait: their container is not running, or they cannot be in force where it is.

use std::collections::HashSet;

use super::{
    Waits, Wanted,
    plan::{Planner, state},
};
use crate::{
    config::{Container, Origin, Prune, RuleName, Target},
    netns::NetnsCookie,
    supervisor::follow::Followed,
};

impl Planner<'_> {
    /// Rules that wait from now on, and rules that waited and shall not any more.
    pub(super) fn compare_waiting(
        &mut self,
        waiting: Vec<(Waits, Wanted)>,
        (places, stay): (&mut HashSet<(Container, RuleName)>, &HashSet<Target>),
    ) {
        for (_, one) in &waiting {
            self.refuse_to_take_over(None, one);
        }
        let known = std::mem::take(&mut self.followed);
        let nowhere = NetnsCookie(0);
        for (Waits { entry, container, id, why }, one) in waiting {
            let key = (container.clone(), one.rule.name.clone());
            if places.contains(&key) {
                // Of a name that was two containers' while the engine was asked.
                continue;
            }
            let before = known.get(&key);
            let spec = one.rule.to_spec();
            match before {
                Some(before) if before.spec == spec => self.plan.unchanged += 1,
                before => {
                    let before = before.map(|before| state(before.spec.clone(), Some(&container)));
                    let after = state(spec.clone(), Some(&container));
                    self.change(&Target::Container(container.clone()), nowhere, before, Some(after));
                }
            }
            let is_left = |at: &NetnsCookie| self.left.contains(&(*at, key.1.clone()));
            let at = before.and_then(|before| before.at).filter(is_left);
            let discovered = self.request.discovered(entry).is_some();
            // That a name has gone to another container is told when that runs.
            let named = before.filter(|_| !discovered).map(|before| before.id.clone());
            let (id, host_netns, origin) = (named.unwrap_or(id), one.host_netns, Origin::File);
            let followed = Followed { spec, host_netns, origin, id, at, why, discovered };
            self.plan.followed.push((key.0.clone(), key.1.clone(), followed));
            places.insert(key);
        }
        let mut gone: Vec<_> = known.into_iter().filter(|(key, _)| !places.contains(key)).collect();
        gone.sort_by(|(one, _), (other, _)| one.cmp(other));
        if self.request.is_again() {
            self.plan.only_adds = true;
            return;
        }
        for (key, followed) in gone {
            if followed.origin == Origin::File && stay.contains(&Target::Container(key.0.clone())) {
                self.plan.followed.push((key.0, key.1, followed));
                continue;
            }
            let is_in_force = followed.at.is_some_and(|at| {
                let netns = self.table.get(&at);
                netns.is_some_and(|netns| netns.published.load().current.get(&key.1).is_some())
            });
            let is_owned = followed.origin == Origin::File || self.request.prune == Prune::Api;
            if is_owned && !is_in_force {
                let before = state(followed.spec, Some(&key.0));
                self.change(&Target::Container(key.0.clone()), nowhere, Some(before), None);
                self.plan.unfollowed.insert(key);
            }
        }
    }
}
