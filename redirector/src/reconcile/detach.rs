//! `detach`: one rule, or the whole namespace; and what follows the target, wherever that is. All of it, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
};

use super::{
    leave::take_out,
    part::{Part, Plan},
    places::{Sought, seek},
    refused::Refused,
    standing::Standing,
    turn::{turn_of, with_places},
    world::World,
};
use crate::{
    config::{RuleName, Target, meant::nearest},
    control::{Caller, DetachRequest, DetachResult, Detached, Error, SCHEMA},
    intent::{Edit, Store, Subject},
    locate::ContainerId,
    netns::NetnsCookie,
    steer::Steered,
};

/// `POST /v1/detach`.
pub(crate) async fn detach(
    world: &World,
    caller: Caller,
    DetachRequest { target, rule, close }: DetachRequest,
) -> Result<Detached, Error> {
    let sought = seek(world, &target, caller).await;
    let steered = || sought.find(world).ok();
    let standing = |netns: &Option<Arc<Steered>>| netns.as_ref().map(Standing::from);
    let at = sought.cookie();
    let turn = turn_of(world, |store| about(store, &target, (at, standing(&steered()).as_ref()))).await;
    // One that has come since then by that name is not what was meant.
    let netns = steered().filter(|netns| turn.holds(&Subject::Netns(netns.cookie)));
    let wanted = Gone::of(&world.intent(), &target, standing(&netns).as_ref(), rule.as_ref());
    // It is only forgotten what could not be made where what is in force is detached, too.
    let forgotten = |world: &World| world.set_aside.forget((&target, sought.cookie()), rule.as_ref());
    if wanted.is_empty() {
        let set_aside = forgotten(world);
        if set_aside.is_empty() {
            return Err(missing(world, &sought, (target, rule)));
        }
        let cookie = sought.cookie().unwrap_or(NetnsCookie(0));
        let steered = world.steered.get(cookie).is_some();
        return Ok(answer((target, cookie, None), set_aside, steered));
    }
    let Gone { rules, edit, places } = wanted;
    let found = found(&world.intent(), &edit);
    let without = |(at, names): (&NetnsCookie, &Vec<RuleName>)| {
        world.steered.get(*at).map(|netns| Part::without(&Standing::from(&netns), names))
    };
    let parts = places.iter().filter_map(without).collect();
    // Whatever is in force there when it goes.
    let steered: Vec<_> =
        places.iter().filter_map(|(at, names)| Some((world.steered.get(*at)?, names.clone()))).collect();
    let states = steered.iter().map(|(netns, names)| {
        let current = Arc::clone(&netns.published.load().current);
        names.iter().filter_map(|name| current.get(name).cloned()).collect::<Vec<_>>()
    });
    let states: Vec<_> = states.flatten().collect();
    take_out(world, Plan { parts, edit }).await?;
    // What was found stays away until the next file.
    let closed = if close {
        states.iter().for_each(|state| state.close());
        let of = |(netns, names): &(Arc<Steered>, Vec<RuleName>)| {
            netns.share.roster.close(|whose| names.contains(&whose.rule.name))
        };
        steered.iter().map(of).sum::<usize>() as u64
    } else {
        0
    };
    world.discovery.detached(found);
    let rules = with(rules, forgotten(world));
    // Those that only wait are nowhere.
    let there = netns.as_ref().filter(|netns| places.contains_key(&netns.cookie));
    let at = there.map(|netns| netns.cookie).or(places.keys().next_back().copied());
    let is_steered = at.is_some_and(|at| world.steered.get(at).is_some());
    if let Some(netns) = there {
        let names: Vec<_> = rules.iter().map(ToString::to_string).collect();
        let names = names.join(" ");
        tracing::info!(netns = %netns.target, rules = rules.len(), names, steered = is_steered, by = %caller, "detach");
    }
    let target = there.map_or(target, |netns| netns.target.clone());
    let answer =
        answer((target, at.unwrap_or(NetnsCookie(0)), there.map(|netns| &**netns)), rules, is_steered);
    Ok(Detached { closed, connections: answer.connections.saturating_sub(closed), ..answer })
}

/// What a detach is about: the namespace, the targets that rules there follow, and where else rules for them are.
fn about(
    store: &Store,
    target: &Target,
    (at, there): (Option<NetnsCookie>, Option<&Standing>),
) -> BTreeSet<Subject> {
    let mut targets = BTreeSet::from_iter(Some(target.clone()).filter(Target::can_be_followed));
    // What could not be made there may be tried again at this moment.
    let mut about: BTreeSet<_> = at.map(Subject::Netns).into_iter().collect();
    if let Some(there) = there {
        targets.extend(there.rules.iter().flat_map(|state| store.owners(there.cookie, &state.rule.name)));
        about.insert(Subject::Netns(there.cookie));
    }
    about.extend(with_places(store, &targets));
    about
}

/// What goes.
#[derive(Debug, Default)]
struct Gone {
    /// As they are told, each once.
    rules: Vec<RuleName>,
    edit: Edit,
    /// Where they are in force.
    places: BTreeMap<NetnsCookie, Vec<RuleName>>,
}

impl Gone {
    /// The rules of a namespace, one or all; and those that follow the target that is named, where they are and where they
    /// wait.
    fn of(store: &Store, target: &Target, there: Option<&Standing>, rule: Option<&RuleName>) -> Self {
        let mut gone = Self::default();
        let is_meant = |name: &RuleName| rule.is_none_or(|rule| rule == name);
        if let Some(there) = there {
            for name in there.rules.iter().map(|state| &state.rule.name).filter(|name| is_meant(name)) {
                gone.take(store, there.cookie, name);
            }
        }
        // One rule is meant where it is; where it is not there, where it follows the target.
        if target.can_be_followed() && (rule.is_none() || gone.is_empty()) {
            let subject = Subject::from(target);
            for (name, one) in store.of(&subject).filter(|(name, _)| is_meant(name)) {
                gone.edit.drop(target, name);
                match one.at {
                    Some(at) => gone.take(store, at, name),
                    None => gone.tell(name),
                }
            }
        }
        gone
    }

    /// A rule goes from a namespace, whoever wants it there.
    fn take(&mut self, store: &Store, at: NetnsCookie, name: &RuleName) {
        self.tell(name);
        for (subject, _) in store.at(at, name) {
            self.edit.drop(subject.clone(), name);
        }
        let names = self.places.entry(at).or_default();
        if !names.contains(name) {
            names.push(name.clone());
        }
    }

    fn tell(&mut self, name: &RuleName) {
        if !self.rules.contains(name) {
            self.rules.push(name.clone());
        }
    }

    fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

/// Those of the rules that go which are there because a container was found by a label.
fn found(store: &Store, edit: &Edit) -> Vec<(ContainerId, RuleName)> {
    let gone = edit.drop.iter().filter_map(|(subject, name)| Some((store.get(subject, name)?, name)));
    let found = gone.filter(|(one, _)| one.is_found());
    found.filter_map(|(one, name)| Some((one.id()?.clone(), name.clone()))).collect()
}

/// Why there is nothing to be detached.
fn missing(world: &World, sought: &Sought, (target, rule): (Target, Option<RuleName>)) -> Error {
    match (sought.find(world), rule) {
        (Ok(netns), Some(rule)) => {
            let there = Arc::clone(&netns.published.load().current);
            let names: Vec<_> = there.rules().iter().map(|state| state.rule.name.to_string()).collect();
            let hint = match nearest(rule.as_str(), names.iter().map(String::as_str)) {
                Some(name) => format!("did you mean `{name}`?"),
                None => {
                    format!("there are: {}", names.iter().take(20).cloned().collect::<Vec<_>>().join(", "))
                }
            };
            Error::from(Refused::NoSuchRule { target, rule }).with_hint(hint)
        }
        (Ok(_), None) => Refused::NotSteered(target).into(),
        (Err(error), _) => error,
    }
}

/// With rules that could not come into force beside those that were.
fn with(mut rules: Vec<RuleName>, set_aside: Vec<RuleName>) -> Vec<RuleName> {
    let others: Vec<_> = set_aside.into_iter().filter(|name| !rules.contains(name)).collect();
    rules.extend(others);
    rules
}

fn answer(
    (target, at, netns): (Target, NetnsCookie, Option<&Steered>),
    rules: Vec<RuleName>,
    steered: bool,
) -> Detached {
    let connections = netns.map_or(0, |netns| netns.connections.active.load(Ordering::Relaxed));
    Detached {
        schema: SCHEMA,
        result: DetachResult::Detached,
        target,
        cookie: at.0,
        rules,
        steered,
        closed: 0,
        connections,
    }
}

#[cfg(test)]
mod tests;
