//! Rules that follow their container: to its next namespace when it starts again, to another container that gets its
//! name. Meanwhile they wait.
//!
//! A rule follows what the user wrote, a name or an id. Which container that was is kept as well, so that it can be
//! told when it is another one.

mod follower;
mod list;

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use redirector_ebpf::MAX_RULES;

pub(super) use self::{
    follower::{RETRIES, backoff},
    list::{Followed, Follows},
};
use super::{Supervisor, Table, attach::HostNetns, namespace::Namespace, rules::RuleState};
use crate::{
    config::{Container, Origin, RuleName, RuleSpec, Target},
    control::{AttachResult, Attached, Code, Detached, Error, SCHEMA, WaitingView},
    locate::ContainerId,
    netns::NetnsCookie,
};

/// Whether a rule follows its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It ends with the namespace.
    Not,
    /// From now on.
    Begin,
    /// It does, and is put where the container is now.
    Still,
}

impl Supervisor {
    /// Whether a rule that is to follow its container still shall: this one, if it was found by a label.
    pub(super) fn may_be_put(
        &self,
        (target, id): (&Target, Option<&ContainerId>),
        spec: &RuleSpec,
        follow: Follow,
    ) -> Result<(), Error> {
        let (Target::Container(container), Follow::Still, Some(name)) = (target, follow, &spec.name) else {
            return Ok(());
        };
        let is_it =
            |one: &Followed| one.spec == *spec && (!one.discovered || id.is_none_or(|id| *id == one.id));
        if self.follows.get(container, name).is_some_and(|followed| is_it(&followed)) {
            return Ok(());
        }
        Err(Error::new(Code::Failed, format!("target `{target}`: this rule does not follow it any more")))
    }

    /// Whether a rule that comes to where its container is takes no other rule's place there. One that says the same
    /// and follows another name of the container is no other.
    pub(super) fn may_change(
        &self,
        netns: Option<&Namespace>,
        target: &Target,
        spec: &RuleSpec,
        follow: Follow,
    ) -> Result<(), Error> {
        let (Some(netns), Target::Container(container), Follow::Still, Some(name)) =
            (netns, target, follow, &spec.name)
        else {
            return Ok(());
        };
        let published = netns.published.load();
        let Some(there) = published.current.get(name) else { return Ok(()) };
        let owners = self.follows.owners(netns.cookie, name);
        let says_the_same = there.rule.is_like(&spec.clone().named(name.clone()));
        if owners.contains(container) || (says_the_same && !owners.is_empty()) {
            return Ok(());
        }
        let message = format!("rule `{name}`: there is another rule of that name in `{}`", netns.target);
        Err(Error::new(Code::Failed, message))
    }

    /// A rule is in force in a namespace: notes whether it follows its container there. Gives whether that is new.
    pub(super) async fn keep_following(
        &self,
        table: &mut Table,
        follow: Follow,
        (target, id): (&Target, Option<ContainerId>),
        netns: &Arc<Namespace>,
        (name, spec, (host_netns, origin)): (RuleName, RuleSpec, (HostNetns, Origin)),
    ) -> bool {
        let (Target::Container(container), Some(id), Follow::Begin | Follow::Still) = (target, id, follow)
        else {
            let was_there = !self.follows.forget(netns.cookie, std::slice::from_ref(&name)).is_empty();
            let waited = self.follows.remove(target, |rule| *rule == name);
            return was_there || !waited.is_empty();
        };
        if follow == Follow::Begin {
            // The last word counts, by whatever name the container was called.
            self.follows.take_over(container, netns.cookie, &name);
        }
        let before = self.follows.get(container, &name);
        let discovered = follow == Follow::Still && before.is_some_and(|before| before.discovered);
        let (at, why) = (Some(netns.cookie), String::new());
        let followed = Followed { spec, host_netns, origin, id: id.clone(), at, why, discovered };
        let before = self.follows.keep(container, &name, followed.clone());
        if let Some(before) = &before {
            if before.id != id {
                tracing::warn!(target = %container, rule = %name, before = %before.id, now = %id, "that name is another container's now; the rule follows the name");
            }
            if before.at != Some(netns.cookie) {
                // Where it was may live on, by another container that shares it.
                self.leave(table, [(name, before.clone())]).await;
            }
        }
        before.is_none_or(|before| before.spec != followed.spec || before.host_netns != followed.host_netns)
    }

    /// Takes rules that do not follow any more out of the namespaces where they were, if no other name has them there.
    pub(super) async fn leave(
        &self,
        table: &mut Table,
        rules: impl IntoIterator<Item = (RuleName, Followed)>,
    ) {
        let mut gone: HashMap<NetnsCookie, Vec<RuleName>> = HashMap::new();
        for (name, before) in rules {
            let Some(netns) = before.at.and_then(|at| table.get(&at)) else { continue };
            if self.follows.owners(netns.cookie, &name).is_empty() && before.is_there(netns) {
                gone.entry(netns.cookie).or_default().push(name);
            }
        }
        let mut whole = Vec::new();
        for (cookie, names) in gone {
            let Some(netns) = table.get(&cookie).cloned() else { continue };
            match self.take_out(table, &netns, &names).await {
                Ok(true) => {}
                Ok(false) => whole.push(netns),
                Err(error) => {
                    tracing::error!(netns = %netns.target, %error, "take rules away where they were");
                }
            }
        }
        // Each waits for its handshakes.
        join_all(whole.iter().map(|netns| self.let_go(netns))).await;
    }

    /// Keeps a rule for a container that is not running.
    pub(super) async fn wait_for(
        &self,
        container: &Container,
        (id, why): (ContainerId, String),
        (spec, host_netns): (RuleSpec, HostNetns),
        dry_run: bool,
    ) -> Result<Attached, Error> {
        let _table = self.table.lock().await;
        if self.is_ending() {
            return Err(Error::new(Code::Failed, "the daemon is stopping"));
        }
        let name = spec.name.clone().unwrap_or_else(|| self.follows.name_for(container, &spec));
        let others = self.follows.of_container(container).into_iter().filter(|(other, _)| *other != name);
        if others.count() >= MAX_RULES {
            let target = Target::Container(container.clone());
            let message = format!("rule `{name}`: {MAX_RULES} rules follow `{target}` already");
            return Err(Error::new(Code::Failed, message));
        }
        let spec = RuleSpec { name: Some(name.clone()), ..spec };
        let before = self.follows.get(container, &name);
        let is_files = before.as_ref().is_some_and(|before| before.origin == Origin::File);
        if is_files && before.as_ref().is_some_and(|before| before.spec != spec) {
            let message = format!("rule `{name}`: for `{container}` it is that of a configuration file");
            let hint = "change it in the file and `apply` that, or take another name";
            return Err(Error::new(Code::Failed, message).with_hint(hint));
        }
        // A file's rule that says the same waits already, and stays the file's.
        if !dry_run && !is_files {
            // Where it is in force, and of which container, is not what has changed.
            let (id, at) = before.map_or((id, None), |before| (before.id, before.at));
            let origin = Origin::Api;
            let followed = Followed { spec, host_netns, origin, id, at, why, discovered: false };
            self.follows.keep(container, &name, followed);
            // It may run by now.
            self.follows.look_at([container.clone()]);
            tracing::info!(target = %container, rule = %name, "the rule waits until the container runs");
        }
        Ok(Attached {
            schema: SCHEMA,
            result: AttachResult::Waiting,
            dry_run,
            target: Target::Container(container.clone()),
            cookie: 0,
            rule: name,
            warnings: Vec::new(),
            foreign_programs: Vec::new(),
            existing_connections: 0,
        })
    }

    /// Ends rules that follow a container, those that wait and those that are in force where it was last; `None` where
    /// there are none.
    pub(super) async fn stop_following(
        &self,
        table: &mut Table,
        target: &Target,
        rule: Option<&RuleName>,
    ) -> Result<Option<Detached>, Error> {
        let Target::Container(container) = target else { return Ok(None) };
        let mut followed = self.follows.of_container(container);
        followed.retain(|(name, _)| rule.is_none_or(|rule| rule == name));
        let mut detached = Detached {
            schema: SCHEMA,
            result: "detached".into(),
            target: target.clone(),
            cookie: 0,
            rules: followed.iter().map(|(name, _)| name.clone()).collect(),
            steered: false,
            connections: 0,
        };
        for (name, followed) in &followed {
            let netns = followed.at.and_then(|at| table.get(&at)).cloned();
            if let Some(netns) = netns.filter(|netns| followed.is_there(netns)) {
                detached.cookie = netns.cookie.0;
                detached.steered = self.remove_rules(table, &netns, std::slice::from_ref(name)).await?;
            }
        }
        self.follows.remove(target, |name| detached.rules.contains(name));
        Ok((!detached.rules.is_empty()).then_some(detached))
    }

    /// The rules that are not in force, of all containers or of one, by what keeps them waiting.
    pub(super) fn waiting(&self, table: &Table, only: Option<&Target>) -> Vec<WaitingView> {
        let mut views: Vec<WaitingView> = Vec::new();
        for (container, followed) in self.follows.all() {
            let target = Target::Container(container);
            let netns = followed.at.and_then(|at| table.get(&at));
            let is_in_force = netns.is_some_and(|netns| followed.is_in_force(netns));
            if is_in_force || only.is_some_and(|only| *only != target) {
                continue;
            }
            let Followed { spec, id, why, .. } = followed;
            match views.last_mut().filter(|view| view.target == target && view.why == why) {
                Some(view) => view.rules.push(spec),
                None => views.push(WaitingView { target, container: id.to_string(), why, rules: vec![spec] }),
            }
        }
        views
    }
}

impl Followed {
    /// Whether a rule of its name is where it was last.
    fn is_there(&self, netns: &Namespace) -> bool {
        self.rule_there(netns).is_some()
    }

    /// Whether that rule says the same.
    fn is_in_force(&self, netns: &Namespace) -> bool {
        self.rule_there(netns).is_some_and(|state| {
            let name = state.rule.name.clone();
            state.rule.is_like(&self.spec.clone().named(name))
        })
    }

    fn rule_there(&self, netns: &Namespace) -> Option<Arc<RuleState>> {
        let name = self.spec.name.as_ref().filter(|_| self.at == Some(netns.cookie))?;
        netns.published.load().current.get(name).cloned()
    }
}

/// Which container a rule of this namespace follows.
pub(super) fn container_of(follows: &Follows, at: NetnsCookie, rule: &RuleName) -> Option<Container> {
    follows.owners(at, rule).into_iter().next()
}
