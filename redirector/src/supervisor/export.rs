//! `export`: what is in force, as a file would say it.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use futures_util::{StreamExt as _, stream};

use super::Supervisor;
use crate::{
    config::{RuleSpec, Target, file::NamespaceSpec},
    control::{Caller, Exported, SCHEMA},
    netns::NetnsCookie,
    supervisor::attach::HostNetns,
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

impl Supervisor {
    /// Every rule but those of leases, those that wait among them.
    pub(super) async fn exported(&self, caller: Caller) -> Exported {
        let lost = self.lost(caller).await;
        let table = self.table.lock().await;
        let mut namespaces: BTreeMap<Heading, (Target, Vec<RuleSpec>)> = BTreeMap::new();
        let mut add = |target: Target, follows: bool, host_netns: bool, rule: RuleSpec| {
            let heading = Heading { target: target.to_string(), follows, host_netns };
            namespaces.entry(heading).or_insert((target, Vec::new())).1.push(rule);
        };
        let followed = self.follows.all();
        for netns in table.values() {
            let current = Arc::clone(&netns.published.load().current);
            let follows = |state: &super::rules::RuleState| {
                followed.iter().any(|(_, one)| {
                    one.at == Some(netns.cookie) && one.spec.name.as_ref() == Some(&state.rule.name)
                })
            };
            for state in current.rules().iter().filter(|state| !state.is_lease() && !follows(state)) {
                let target = match lost.contains(&netns.cookie) {
                    true => Target::Cookie(netns.cookie.0),
                    false => netns.target.clone(),
                };
                add(target, false, netns.host, state.rule.to_spec());
            }
        }
        // Those of containers that were found are not said, but what finds them.
        for (container, followed) in followed.into_iter().filter(|(_, followed)| !followed.discovered) {
            let host_netns = followed.host_netns == HostNetns::Allowed;
            add(Target::Container(container), true, host_netns, followed.spec);
        }
        // Those that could not be made, unless there are others in their place.
        let mut aside: Vec<_> = self.set_aside.list().into_iter().map(|one| one.spec).collect();
        aside.retain(|spec| namespaces.keys().all(|heading| heading.target != spec.target.to_string()));
        let namespaces = namespaces.into_iter().map(|(heading, (target, mut rules))| {
            rules.sort_by(|one, other| one.name.cmp(&other.name));
            let is_container = matches!(target, Target::Container(_));
            // Where it is the default it is not said.
            let follow = (is_container && !heading.follows).then_some(false);
            NamespaceSpec { target, follow, host_netns: heading.host_netns, rules }
        });
        Exported {
            schema: SCHEMA,
            namespaces: namespaces.chain(aside).collect(),
            discover: self.discovery.specs(),
        }
    }

    /// Namespaces that are not any more what the target leads to by which they were named.
    async fn lost(&self, caller: Caller) -> HashSet<NetnsCookie> {
        let named: Vec<_> =
            self.table.lock().await.values().map(|netns| (netns.target.clone(), netns.cookie)).collect();
        let sought = stream::iter(named).map(|(target, cookie)| async move {
            let leads_there = self.seek(&target, caller).await.cookie() == Some(cookie);
            (!leads_there).then_some(cookie)
        });
        sought.buffer_unordered(AT_ONCE).filter_map(async |lost| lost).collect().await
    }
}
