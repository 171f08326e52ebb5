//! From the containers that there are to rules that follow them.

use std::{collections::BTreeMap, sync::Arc};

use super::{Discovered, State};
use crate::{
    config::{Container, Engine, Origin, RuleName, Target, file::DiscoverSpec},
    intent::{Edit, Follows, HostNetns, Intended, Store, Subject},
    locate::ContainerId,
    netns::NetnsCookie,
    reconcile::{
        leave::{leaving, take_out, unwanted},
        part::Plan,
        turn::{turn_of, with_places},
        world::World,
    },
};

/// An engine has said which containers there are. What is gone loses its rules, what is new has them from now on. Not where
/// something else than these is looked for by now: then it is `false`.
pub(super) async fn settle(
    world: &World,
    engine: Engine,
    specs: &[DiscoverSpec],
    mut found: BTreeMap<ContainerId, Discovered>,
) -> bool {
    let new: Vec<_> = found.values().map(|one| Target::from(&one.container)).collect();
    let turn = turn_of(world, |store| {
        let known = store.containers(engine, |_, _| true);
        let mut about = with_places(store, known.iter().chain(&new));
        about.insert(Subject::Files);
        about
    });
    let _turn = turn.await;
    if world.is_ending() {
        return true;
    }
    if world.discovery.specs() != specs {
        return false;
    }
    let (unwanted, edit, due) = {
        let (intent, mut state) = (world.intent(), world.discovery.state());
        let (mut edit, left) = moved(&intent, engine, &found);
        for (id, one) in &mut found {
            place(&intent, &state, (id, one), &mut edit);
        }
        state.tell_refused(engine, &found);
        // Before rules go: whoever sees that they are gone sees that their containers are.
        state.found.insert(engine, found);
        let due: Vec<_> = edit.targets().cloned().collect();
        (unwanted(&intent, &edit, left), edit, due)
    };
    let plan = Plan { parts: leaving(world, unwanted), edit };
    if let Err(error) = take_out(world, plan).await {
        // The next look finds them as they are.
        tracing::error!(%engine, %error, "let rules of containers go that are gone");
        return true;
    }
    if !due.is_empty() {
        world.news.look_at(due);
    }
    true
}

/// What becomes of rules of containers that were found before: those that are gone, and those that have another name. Gives
/// what becomes other, and where rules are in force that nobody wants any more.
fn moved(
    store: &Store,
    engine: Engine,
    found: &BTreeMap<ContainerId, Discovered>,
) -> (Edit, Vec<(NetnsCookie, RuleName)>) {
    let (mut edit, mut left, mut renamed) = (Edit::default(), Vec::new(), Vec::new());
    let containers = store.following().filter_map(|(target, one)| Some((target.container()?, one)));
    let known = containers.filter(|(container, one)| container.engine == engine && one.is_found());
    for (container, one) in known {
        let (name, Some(id)) = (&one.rule.name, one.id()) else { continue };
        let now = found.get(id).map(|one| &one.container);
        if now == Some(container) {
            continue;
        }
        edit.drop(container, name);
        left.extend(one.at.map(|at| (at, name.clone())));
        match now {
            Some(now) => renamed.push((now, one)),
            None => {
                tracing::info!(target = %container, %id, rule = %name, "the container is gone, and its rule with it");
            }
        }
    }
    for (now, one) in renamed {
        let key = (now.into(), one.rule.name.clone());
        // Of the other name there may be a rule already that somebody wants there.
        if store.get(&key.0, &key.1).is_none() || edit.drop.contains(&key) {
            edit.put(now, one.clone());
        }
    }
    (edit, left)
}

/// Has rules of a container follow it that do not yet.
fn place(store: &Store, state: &State, (id, one): (&ContainerId, &mut Discovered), edit: &mut Edit) {
    let mut placed = 0;
    for (by, spec) in &one.rules {
        let Some(name) = spec.name.clone() else { continue };
        if state.own.values().any(|own| own.has(&one.container, id, &name))
            || state.detached.contains(&(id.clone(), name.clone()))
        {
            continue;
        }
        let key = (Subject::from(&one.container), name.clone());
        let there = store.get(&key.0, &key.1).filter(|_| !edit.drop.contains(&key));
        match there {
            _ if edit.has(&key.0, &key.1) => {}
            Some(there) if there.origin == Origin::File => {}
            Some(_) => one.by.entry(*by).or_default().push(in_its_way(&one.container, &name)),
            None => {
                let why = "the container was found a moment ago".into();
                let intended = Intended {
                    rule: Arc::new(spec.clone().named(name)),
                    origin: Origin::File,
                    set: None,
                    host_netns: HostNetns::Refused,
                    at: None,
                    follows: Some(Box::new(Follows { id: Some(id.clone()), why, found: true, once: false })),
                };
                edit.put(&one.container, intended);
                placed += 1;
            }
        }
    }
    if placed > 0 {
        tracing::info!(target = %one.container, %id, rules = placed, "found a container by its label");
    }
}

fn in_its_way(container: &Container, name: &RuleName) -> String {
    format!("rule `{name}`: there is one of `attach` that follows `{container}`")
}

#[cfg(test)]
mod tests;
