//! From the containers that there are to rules that follow them.

use std::{collections::BTreeMap, sync::Arc};

use super::{Discovered, State};
use crate::{
    config::{Container, Engine, Origin, RuleName},
    intent::{Edit, Follows, HostNetns, Intended, Store},
    locate::ContainerId,
    netns::NetnsCookie,
    reconcile::{
        leave::leave,
        turn::{turn_of, with_places},
        world::World,
    },
};

/// An engine has said which containers there are. What is gone loses its rules, what is new has them from now on.
pub(super) async fn settle(world: &World, engine: Engine, mut found: BTreeMap<ContainerId, Discovered>) {
    let new: Vec<_> = found.values().map(|one| one.container.clone()).collect();
    let turn = turn_of(world, |store| {
        let known = store.containers(engine, |_, _| true);
        with_places(store, known.iter().chain(&new))
    });
    let _turn = turn.await;
    if world.is_ending() {
        return;
    }
    let left = {
        let mut store = world.intent();
        let mut state = world.discovery.state();
        let (edit, left) = moved(&store, engine, &found);
        let mut due: Vec<_> = edit.containers().cloned().collect();
        store.edit(edit);
        let mut edit = Edit::default();
        for (id, one) in &mut found {
            place(&store, &state, (id, one), &mut edit);
        }
        due.extend(edit.containers().cloned());
        store.edit(edit);
        // Whoever asks what there is sees all of it, or nothing yet.
        state.found.insert(engine, found);
        if !due.is_empty() {
            world.news.look_at(due);
        }
        left
    };
    leave(world, left).await;
}

/// What becomes of rules of containers that were found before: those that are gone, and those that have another name. Gives
/// what becomes other, and where rules are in force that nobody wants any more.
fn moved(
    store: &Store,
    engine: Engine,
    found: &BTreeMap<ContainerId, Discovered>,
) -> (Edit, Vec<(NetnsCookie, RuleName)>) {
    let (mut edit, mut left, mut renamed) = (Edit::default(), Vec::new(), Vec::new());
    let known = store.following().filter(|(container, one)| container.engine == engine && one.is_found());
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
        if state.own.has(&one.container, id, &name) || state.detached.contains(&(id.clone(), name.clone())) {
            continue;
        }
        match store.followed(&one.container, &name) {
            Some(there) if there.origin == Origin::File => {}
            Some(_) => one.by.entry(*by).or_default().push(in_its_way(&one.container, &name)),
            None => {
                let why = "the container was found a moment ago".into();
                let intended = Intended {
                    rule: Arc::new(spec.clone().named(name)),
                    origin: Origin::File,
                    host_netns: HostNetns::Refused,
                    at: None,
                    follows: Some(Follows { id: id.clone(), why, found: true }),
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
