//! What becomes of the rules of a target where that leads. Pure.

use std::sync::Arc;

use redirector_ebpf::CONSUMER_RELAY;

use crate::{
    config::{Origin, RuleName, Target},
    control::AttachResult,
    dial::Whereabouts,
    intent::{Edit, Intended, Store},
    kernel::AttachedProgram,
    locate::ContainerId,
    netns::NetnsCookie,
    reconcile::{
        destinations::Missing,
        judge::{Tells, foreign_programs, judge},
        part::Part,
        refused::Refused,
        standing::{Standing, free_indices},
    },
    steer::{Found, RuleState},
};

/// Where a target leads.
pub(super) struct FoundTarget<'a> {
    pub(super) target: &'a Target,
    pub(super) found: Arc<Found>,
}

/// A rule that is not where its target leads.
pub(super) struct Due {
    /// As it was wanted when somebody looked.
    pub(super) rule: Intended,
    pub(super) whereabouts: Whereabouts,
}

impl Due {
    /// For another try.
    pub(super) fn again(&self) -> Self {
        Self { rule: self.rule.clone(), whereabouts: self.whereabouts.clone() }
    }
}

/// What becomes of them.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// `None` where nothing is other for the kernel.
    pub(super) part: Option<Part>,
    pub(super) edit: Edit,
    pub(super) puts: Vec<Put>,
    pub(super) waits: Vec<(RuleName, Refused)>,
    /// Where rules were until now, elsewhere.
    pub(super) left: Vec<(NetnsCookie, RuleName)>,
}

/// A rule that will be in force there.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) name: RuleName,
    pub(super) result: AttachResult,
    /// The container that had the name, if it was another one.
    pub(super) was: Option<ContainerId>,
}

/// What becomes of rules that are due.
pub(super) fn plan(
    standing: Option<&Standing>,
    intent: &Store,
    place: &FoundTarget<'_>,
    (programs, tells): (&[AttachedProgram], Tells),
    due: Vec<Due>,
) -> Planned {
    let FoundTarget { target, found } = place;
    let at = found.cookie;
    let foreign = foreign_programs(standing.and_then(|there| there.program), programs);
    let rules = standing.map(|there| &there.rules[..]).unwrap_or_default();
    let mut part = Part::of((*target).clone(), at, standing);
    part.rules = rules.to_vec();
    let mut indices = free_indices(rules, Vec::new());
    let mut planned = Planned::default();
    for Due { rule: wanted, whereabouts } in due {
        let name = &wanted.rule.name;
        let id = found.container.as_ref();
        let Some(now) = intent.followed(target, name).filter(|now| is_still(now, &wanted, id)) else {
            // Whoever has changed it has had it looked at.
            continue;
        };
        let there = standing.and_then(|there| there.get(name));
        let free = || indices.next().map(|(index, _)| index);
        let is_there = there.is_some_and(|there| there.rule.is_like(&wanted.rule));
        let in_its_way = if is_there { &[][..] } else { &foreign };
        let judged = is_in_the_way(there.map(|one| &**one), intent, (target, at), &wanted).and_then(|()| {
            judge(target, &wanted.rule, (found, in_its_way, tells), (&whereabouts, Missing::Down))
        });
        // Only what can be takes one.
        let index = judged.and_then(|()| {
            let index = there.map_or_else(free, |there| Some(there.index));
            index.ok_or_else(|| Refused::TooManyRules(name.clone()))
        });
        let index = match index {
            Ok(index) => index,
            Err(refused) => {
                planned.waits.push((name.clone(), refused));
                continue;
            }
        };
        let result = match there {
            Some(there) if is_there => {
                if let (Some(there), Some(found)) = (&there.whereabouts.elsewhere, &whereabouts.elsewhere) {
                    there.adopt(found);
                }
                AttachResult::Unchanged
            }
            _ => {
                let state = RuleState::new(Arc::clone(&wanted.rule), (index, CONSUMER_RELAY), whereabouts);
                state.set_interfaces(&found.survey.interfaces);
                part.rules.retain(|one| one.index != index);
                part.add(Arc::new(state));
                if there.is_some() {
                    AttachResult::Changed
                } else {
                    part.reset.before.push(index);
                    AttachResult::Attached
                }
            }
        };
        let was = now.id().filter(|before| Some(*before) != id).cloned();
        planned.puts.push(Put { name: name.clone(), result, was });
        planned.left.extend(now.at.filter(|before| *before != at).map(|before| (before, name.clone())));
        let (subject, placed) = now.placed(target, at, id);
        planned.edit.drop(*target, name);
        let is_files = intent.get(&subject, name).is_some_and(|there| there.origin == Origin::File);
        if placed.follows.is_some() || !is_files {
            planned.edit.put(subject, placed);
        }
    }
    if part.is_other() {
        part.foreign = Some(foreign);
        part.found = Some(Arc::clone(found));
        planned.part = Some(part);
    }
    planned
}

/// Whether a rule is wanted as it was when somebody looked, for this container.
fn is_still(now: &Intended, then: &Intended, id: Option<&ContainerId>) -> bool {
    now.rule == then.rule && (!now.is_found() || id.is_none_or(|id| now.id() == Some(id)))
}

/// Whether a rule that comes to where its target leads takes another rule's place there. One that says the same and follows
/// another target that leads there is no other; one that says something else is, as long as anybody else wants it.
fn is_in_the_way(
    there: Option<&RuleState>,
    intent: &Store,
    (target, at): (&Target, NetnsCookie),
    wanted: &Intended,
) -> Result<(), Refused> {
    let Some(there) = there else { return Ok(()) };
    let name = &there.rule.name;
    if there.is_lease() {
        return Err(Refused::NameTaken { target: target.clone(), rule: name.clone() });
    }
    let owners = intent.owners(at, name);
    let is_like = there.rule.is_like(&wanted.rule);
    if is_like && wanted.is_once() {
        // It will be one rule, whoever has made it.
        return Ok(());
    }
    if !owners.is_empty() && (is_like || owners.iter().all(|one| one == target)) {
        return Ok(());
    }
    Err(Refused::NameTakenThere { target: target.clone(), rule: name.clone() })
}

#[cfg(test)]
mod tests;
