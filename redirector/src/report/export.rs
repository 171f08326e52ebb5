//! `export`: what is in force, as a file would say it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};

use super::list::snapshot;
use crate::{
    config::{RuleSpec, Target, file::NamespaceSpec},
    control::{Caller, Exported, SCHEMA},
    intent::HostNetns,
    netns::NetnsCookie,
    reconcile::{World, seek},
};

/// Targets that are opened at once.
const AT_ONCE: usize = 16;

/// What several rules of a file have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Heading {
    target: String,
    follows: bool,
    host_netns: bool,
}

/// `GET /v1/export`: every rule but those of leases, those that wait among them.
pub(crate) async fn exported(world: &World, caller: Caller) -> Exported {
    let lost = lost(world, caller).await;
    let mut namespaces: BTreeMap<Heading, (Target, Vec<RuleSpec>)> = BTreeMap::new();
    let mut add = |target: Target, follows: bool, host_netns: bool, rule: RuleSpec| {
        let heading = Heading { target: target.to_string(), follows, host_netns };
        namespaces.entry(heading).or_insert((target, Vec::new())).1.push(rule);
    };
    let (intent, steered) = snapshot(world);
    for netns in steered {
        let current = Arc::clone(&netns.published.load().current);
        for state in current.rules().iter().filter(|state| !state.is_lease()) {
            // One that nobody wants is coming or going at this moment.
            if !intent.is_bound(netns.cookie, &state.rule.name) {
                continue;
            }
            let target = match lost.contains(&netns.cookie) {
                true => Target::Cookie(netns.cookie.0),
                false => netns.target.clone(),
            };
            add(target, false, netns.host, state.rule.to_spec());
        }
    }
    // Those of containers that were found are not said, but what finds them.
    for (target, one) in intent.following().filter(|(_, one)| !one.is_found()) {
        let host_netns = one.host_netns == HostNetns::Allowed;
        add(target.clone(), !one.is_once(), host_netns, one.rule.to_spec());
    }
    // Those that could not be made, unless there are others in their place.
    let mut aside: Vec<_> = world.set_aside.list().into_iter().map(|one| one.spec).collect();
    aside.retain(|spec| namespaces.keys().all(|heading| heading.target != spec.target.to_string()));
    let namespaces = namespaces.into_iter().map(|(heading, (target, mut rules))| {
        rules.sort_by(|one, other| one.name.cmp(&other.name));
        // Where it is the default it is not said.
        let follow = (heading.follows != target.container().is_some()).then_some(heading.follows);
        NamespaceSpec { target, follow, host_netns: heading.host_netns, rules }
    });
    Exported {
        schema: SCHEMA,
        namespaces: namespaces.chain(aside).collect(),
        discover: world.discovery.specs(),
    }
}

/// Namespaces that are not any more what the target leads to by which they were named.
async fn lost(world: &World, caller: Caller) -> HashSet<NetnsCookie> {
    let sought = stream::iter(world.steered.all()).map(|netns| async move {
        let leads_there = seek(world, &netns.target, caller).await.cookie() == Some(netns.cookie);
        (!leads_there).then_some(netns.cookie)
    });
    sought.buffer_unordered(AT_ONCE).filter_map(async |lost| lost).collect().await
}
