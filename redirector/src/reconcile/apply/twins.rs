//! Entries of a file that mean one namespace. Pure.

use std::collections::HashMap;

use super::wanted::{Wanted, flaw};
use crate::{
    config::{RuleName, Target},
    control::Refusal,
    reconcile::refused::Refused,
};

/// Entries that mean one namespace may want the same there, each for its container: that is one rule. Gives the rules, each
/// once, and what is wrong with others.
pub(super) fn without_twins(
    target: &Target,
    wanted: impl Iterator<Item = Wanted>,
) -> (Vec<Wanted>, Vec<Refusal>) {
    let mut known: HashMap<RuleName, usize> = HashMap::new();
    let (mut kept, mut refused) = (Vec::<Wanted>::new(), Vec::new());
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
        let (target, rule) = (target.clone(), one.rule.name.clone());
        let twin = if is_free { Refused::FilesOwn { target, rule } } else { Refused::Twin { target, rule } };
        refused.push(flaw(one.at.0, Some(one.at.1), twin.into()));
    }
    (kept, refused)
}
