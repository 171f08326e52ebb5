//! From the containers that there are to rules that follow them.

use std::collections::BTreeMap;

use super::{Discovered, State};
use crate::{
    config::{Container, Engine, Origin, RuleName, Target},
    locate::ContainerId,
    supervisor::{
        Supervisor, Table,
        attach::HostNetns,
        follow::{Followed, Follows},
    },
};

impl Supervisor {
    /// An engine has said which containers there are. What is gone loses its rules, what is new has them from now on.
    pub(super) async fn settle(
        &self,
        table: &mut Table,
        engine: Engine,
        mut found: BTreeMap<ContainerId, Discovered>,
    ) {
        let (mut renamed, mut gone) = (Vec::new(), Vec::new());
        let all = self.follows.discovered().into_iter();
        for (container, name, followed) in all.filter(|(container, ..)| container.engine == engine) {
            let now = found.get(&followed.id).map(|one| one.container.clone());
            if now.as_ref() == Some(&container) {
                continue;
            }
            self.follows.remove(&Target::Container(container.clone()), |one| *one == name);
            match now {
                Some(now) => renamed.push((now, name, followed)),
                None => {
                    tracing::info!(target = %container, id = %followed.id, rule = %name, "the container is gone, and its rule with it");
                    gone.push((name, followed));
                }
            }
        }
        for (container, name, followed) in renamed {
            if self.follows.get(&container, &name).is_some() {
                // Of the other name there is a rule already that somebody wants there.
                gone.push((name, followed));
            } else {
                self.follows.keep(&container, &name, followed);
                self.follows.look_at([container]);
            }
        }
        self.leave(table, gone).await;
        let mut state = self.discovery.state();
        found.iter_mut().for_each(|(id, one)| place(&self.follows, &state, id, one));
        state.found.insert(engine, found);
    }
}

/// Has rules of a container follow it that do not yet.
fn place(follows: &Follows, state: &State, id: &ContainerId, one: &mut Discovered) {
    let mut placed = 0;
    for (by, spec) in &one.rules {
        let Some(name) = spec.name.clone() else { continue };
        if state.own.has(&one.container, id, &name) || state.detached.contains(&(id.clone(), name.clone())) {
            continue;
        }
        match follows.get(&one.container, &name) {
            Some(there) if there.origin == Origin::File => {}
            Some(_) => one.by.entry(*by).or_default().push(in_its_way(&one.container, &name)),
            None => {
                let followed = Followed {
                    spec: spec.clone(),
                    host_netns: HostNetns::Refused,
                    origin: Origin::File,
                    id: id.clone(),
                    at: None,
                    why: "the container was found a moment ago".into(),
                    discovered: true,
                };
                follows.keep(&one.container, &name, followed);
                placed += 1;
            }
        }
    }
    if placed > 0 {
        tracing::info!(target = %one.container, %id, rules = placed, "found a container by its label");
        follows.look_at([one.container.clone()]);
    }
}

fn in_its_way(container: &Container, name: &RuleName) -> String {
    format!("rule `{name}`: there is one of `attach` that follows `{container}`")
}
