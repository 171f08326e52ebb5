//! What an attach comes to. Pure.

use std::{collections::HashSet, sync::Arc};

use redirector_ebpf::CONSUMER_RELAY;

use super::wanted::For;
use crate::{
    config::{Origin, Rule, RuleName, RuleSpec, Target},
    control::{self, AttachResult},
    intent::{Edit, Follows, HostNetns, Intended, Store, Subject},
    locate::ContainerId,
    netns::NetnsCookie,
    reconcile::{
        refused::Refused,
        standing::{Standing, free_indices},
    },
    steer::RuleState,
};

/// A rule that somebody asks for, in a namespace that was found.
pub(super) struct Asked<'a> {
    pub(super) target: &'a Target,
    pub(super) at: NetnsCookie,
    /// The container that it was found by.
    pub(super) id: Option<&'a ContainerId>,
    pub(super) spec: RuleSpec,
    pub(super) whom: &'a For,
    pub(super) host_netns: HostNetns,
    /// Its destination was found through a process.
    pub(super) means_process: bool,
}

/// What it comes to.
#[derive(Debug)]
pub(super) struct AttachPlan {
    pub(super) result: AttachResult,
    /// Whether something is other for the kernel; else it is only other for whom the rule is.
    pub(super) is_other: bool,
    pub(super) rule: Arc<Rule>,
    /// What the rule of this name said there, where that was something else.
    pub(super) before: Option<control::ChangeSide>,
    pub(super) index: u32,
    pub(super) consumer: u32,
    pub(super) edit: Edit,
    /// Where it was until now, elsewhere.
    pub(super) left: Option<NetnsCookie>,
}

/// Which rule comes of what is asked for, and what that means for those that are there.
///
/// # Errors
///
/// When somebody else's is in its way, or there is no room.
pub(super) fn plan(
    standing: Option<&Standing>,
    intent: &Store,
    asked: Asked<'_>,
) -> Result<AttachPlan, Refused> {
    let Asked { target, at, id, spec, whom, host_netns, means_process } = asked;
    let is_lease = matches!(whom, For::Program(_));
    let consumer = match (standing, is_lease) {
        (_, false) => CONSUMER_RELAY,
        (None, true) => CONSUMER_RELAY + 1,
        (Some(there), true) => {
            there.free_consumer().ok_or_else(|| Refused::TooManyPrograms(there.target.clone()))?
        }
    };
    let given = spec.name.clone();
    let name = given.clone().unwrap_or_else(|| free_name(standing, intent, target, &spec));
    let rule = spec.named(name);
    let same = standing.and_then(|there| match &given {
        Some(name) => there.get(name),
        None => there.like(&rule),
    });
    let mut made = match same {
        Some(state) => {
            let there = standing.map_or(target, |there| &there.target);
            if state.is_lease() || is_lease {
                return Err(Refused::NameTaken { target: there.clone(), rule: rule.name });
            }
            let is_files = intent.origin(at, &state.rule.name) == Some(Origin::File);
            let is_like = state.rule.is_like(&rule);
            if is_files && !is_like {
                return Err(Refused::OfFile { target: there.clone(), rule: rule.name });
            }
            // Other rules that name the same do not mean that process, so it has no destination in common with them any
            // more. What a file's rule means is for the file to say.
            let is_news = means_process && !is_files && !means_a_process(state);
            let is_other = !is_like || is_news;
            let result = if is_other { AttachResult::Changed } else { AttachResult::Unchanged };
            let rule = if is_like { Arc::clone(&state.rule) } else { Arc::new(rule) };
            let before = (result == AttachResult::Changed).then(|| control::ChangeSide {
                rule: state.rule.to_spec(),
                follows: intent.owners(at, &state.rule.name).into_iter().next(),
            });
            let (edit, left) = (Edit::default(), None);
            let outcome =
                AttachPlan { result, is_other, rule, before, index: state.index, consumer, edit, left };
            if is_files {
                // Whether it follows is for the file to say.
                return Ok(outcome);
            }
            outcome
        }
        None => {
            let rules = standing.map(|there| &there.rules[..]).unwrap_or_default();
            let index = free_indices(rules, Vec::new()).next();
            let (index, _) = index.ok_or_else(|| Refused::TooManyRules(rule.name.clone()))?;
            let (result, edit, left) = (AttachResult::Attached, Edit::default(), None);
            AttachPlan {
                result,
                is_other: true,
                rule: Arc::new(rule),
                before: None,
                index,
                consumer,
                edit,
                left,
            }
        }
    };
    if !is_lease
        && let Some(files) = intent.followed(target, &made.rule.name)
        && files.origin == Origin::File
        && (files.rule != made.rule || (files.is_found() && files.id() != id))
    {
        // It waits, or is where the target led.
        return Err(Refused::OfFileFor { target: target.clone(), rule: made.rule.name.clone() });
    }
    let follows = intent.owners(at, &made.rule.name).into_iter().next();
    if made.want(intent, (target, at, id), whom, host_netns) && made.result == AttachResult::Unchanged {
        made.result = AttachResult::Changed;
        made.before = Some(control::ChangeSide { rule: made.rule.to_spec(), follows });
    }
    Ok(made)
}

/// A name for a rule that has none: that of one that says the same and waits for the target, else `rule-N`, the lowest N that
/// is free, there as well as among what follows the target.
fn free_name(standing: Option<&Standing>, intent: &Store, target: &Target, spec: &RuleSpec) -> RuleName {
    let there = standing.map(|there| &there.rules[..]).unwrap_or_default();
    let taken: HashSet<_> = there.iter().map(|state| &state.rule.name).collect();
    let is_followed = |name: &RuleName| intent.followed(target, name).is_some();
    let of_target = target.can_be_followed().then(|| intent.name_for(target, spec));
    let mut names = (1..).map(RuleName::numbered);
    let free = || names.find(|name| !taken.contains(name) && !is_followed(name));
    of_target.filter(|name| !taken.contains(name)).or_else(free).expect("there are few rules")
}

fn means_a_process(state: &RuleState) -> bool {
    state.whereabouts.elsewhere.as_ref().is_some_and(|one| one.is_found_by_process())
}

impl AttachPlan {
    /// Notes for whom the rule is wanted from now on: the last word counts, by whatever name a container was called. Gives
    /// whether that is other than before.
    fn want(
        &mut self,
        intent: &Store,
        (target, at, id): (&Target, NetnsCookie, Option<&ContainerId>),
        whom: &For,
        host_netns: HostNetns,
    ) -> bool {
        let name = &self.rule.name;
        let here: Vec<Subject> = intent.at(at, name).map(|(subject, _)| subject.clone()).collect();
        let followed = here.iter().any(|subject| subject.target().is_some());
        here.into_iter().for_each(|subject| self.edit.drop(subject, name));
        let rule = Arc::clone(&self.rule);
        let before = match whom {
            // What waits for its target waits until the program has ended.
            For::Program(_) => None,
            For::Namespace | For::Target => intent.followed(target, name),
        };
        self.left = before.and_then(|before| before.at).filter(|before| *before != at);
        if before.is_some() {
            self.edit.drop(target, name);
        }
        if let Some(files) = before.filter(|before| before.origin == Origin::File) {
            // It stays the file's, and is where its follower would have put it.
            let (subject, placed) = files.placed(target, at, id);
            self.edit.put(subject, placed);
            return true;
        }
        match whom {
            For::Program(_) => {
                self.edit.put(at, Intended::there(at, rule, Origin::Lease));
                false
            }
            For::Target => {
                let follows = Follows { id: id.cloned(), ..Follows::default() };
                let (at, follows) = (Some(at), Some(Box::new(follows)));
                let wanted = Intended { rule, origin: Origin::Api, set: None, host_netns, at, follows };
                let is_same = |one: &Intended| {
                    one.rule == wanted.rule && one.host_netns == wanted.host_netns && !one.is_once()
                };
                let is_news = before.is_none_or(|one| !is_same(one));
                self.edit.put(target, wanted);
                is_news
            }
            For::Namespace => {
                self.edit.put(at, Intended::there(at, rule, Origin::Api));
                followed || before.is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests;
