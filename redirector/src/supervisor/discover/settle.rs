//! From the containers that there are to rules that follow them.

use std::collections::BTreeMap;

use super::Discovered;
use crate::{
    config::{Container, Engine, Origin, RuleName, Target},
    supervisor::{Supervisor, Table, attach::HostNetns, follow::Followed},
    target::ContainerId,
};

impl Supervisor {
    /// An engine has said which containers there are. What is gone loses its rules, what is new has them from now on.
    pub(super) async fn settle(
        &self,
        table: &mut Table,
        engine: Engine,
        mut found: BTreeMap<ContainerId, Discovered>,
    ) {
        let mut renamed = Vec::new();
        for (container, name, followed) in self.follows.discovered(engine) {
            let now = found.get(&followed.id).map(|one| one.container.clone());
            if now.as_ref() == Some(&container) {
                continue;
            }
            self.follows.remove(&Target::Container(container.clone()), |one| *one == name);
            if let Some(now) = now {
                renamed.push((now, name, followed));
                continue;
            }
            tracing::info!(target = %container, id = %followed.id, rule = %name, "the container is gone, and its rule with it");
            self.leave(table, &followed, &name).await;
        }
        for (container, name, followed) in renamed {
            self.go_by(table, container, &name, followed).await;
        }
        for (id, one) in &mut found {
            self.place(id, one);
        }
        self.discovery.state().found.insert(engine, found);
    }

    /// Has rules of a container follow it that do not yet.
    fn place(&self, id: &ContainerId, one: &mut Discovered) {
        let mut is_new = false;
        for (by, spec) in &one.rules {
            let Some(name) = spec.name.clone() else { continue };
            match self.follows.get(&one.container, &name) {
                // What a file says of the container itself goes before.
                Some(there) if there.discovered || there.origin == Origin::File => {}
                Some(_) => {
                    let why = format!("rule `{name}`: there is one of `attach` that follows it");
                    one.by.entry(*by).or_default().push(why);
                }
                // Once it was there, and somebody has detached it.
                None if one.placed.contains(&name) => {}
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
                    self.follows.keep(&one.container, &name, followed);
                    one.placed.insert(name);
                    is_new = true;
                }
            }
        }
        if is_new {
            tracing::info!(target = %one.container, %id, rules = one.rules.len(), "found a container by its label");
            self.follows.look_at([one.container.clone()]);
        }
    }

    /// A container has another name: its rule stays where it is, and goes by that.
    async fn go_by(&self, table: &mut Table, container: Container, name: &RuleName, followed: Followed) {
        if self.follows.get(&container, name).is_some() {
            // Of the other name there is a rule already that somebody wants there.
            return self.leave(table, &followed, name).await;
        }
        self.follows.keep(&container, name, followed);
        self.follows.look_at([container]);
    }
}
