//! Rules that follow their container: to its next namespace when it starts again, to another container that gets its
//! name. Meanwhile they wait.
//!
//! A rule follows what the user wrote, a name or an id. Which container that was is kept as well, so that it can be
//! told when it is another one.

mod follower;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Supervisor, Table, attach::HostNetns, namespace::Namespace};
use crate::{
    config::{Container, Engine, RuleName, RuleSpec, Target},
    control::{AttachResult, Attached, Code, Detached, Error, SCHEMA, WaitingView},
    netns::NetnsCookie,
    observe::RateLimit,
    target::{ContainerId, Happened},
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

/// A rule that follows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FollowedRule {
    spec: RuleSpec,
    host_netns: HostNetns,
}

/// A container that rules follow.
#[derive(Clone, Debug)]
struct Followed {
    /// Which one it was last.
    id: ContainerId,
    /// Where it was last.
    at: Option<NetnsCookie>,
    rules: BTreeMap<RuleName, FollowedRule>,
    /// What keeps rules waiting.
    why: String,
}

/// Every container that rules follow. Changed with the table's lock held.
#[derive(Debug)]
pub(super) struct Follows {
    list: Mutex<BTreeMap<Container, Followed>>,
    /// Containers that a follower has to look at.
    due: Mutex<BTreeSet<Container>>,
    /// Tells the followers that something of this has changed.
    news: watch::Sender<()>,
    said_stuck: RateLimit,
}

impl Default for Follows {
    fn default() -> Self {
        let (list, due) = (Mutex::default(), Mutex::default());
        Self { list, due, news: watch::Sender::new(()), said_stuck: RateLimit::default() }
    }
}

/// Where the rules of a container were before they came to be somewhere else.
struct Moved {
    id: ContainerId,
    at: Option<NetnsCookie>,
    rules: Vec<RuleName>,
}

impl Follows {
    fn list(&self) -> MutexGuard<'_, BTreeMap<Container, Followed>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a follower look at these.
    fn look_at(&self, containers: impl IntoIterator<Item = Container>) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).extend(containers);
        self.news.send_replace(());
    }

    /// A container of this engine that has to be looked at, and is not being looked at.
    fn next_due(&self, engine: Engine, busy: &BTreeSet<Container>) -> Option<Container> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let next = due.iter().find(|one| one.engine == engine && !busy.contains(one))?.clone();
        due.take(&next)
    }

    fn get(&self, container: &Container) -> Option<Followed> {
        self.list().get(container).cloned()
    }

    /// The containers of an engine that `what` may be about; all without it.
    fn of(&self, engine: Engine, what: Option<&Happened>) -> Vec<Container> {
        let list = self.list();
        let of_engine = list.iter().filter(|(container, _)| container.engine == engine);
        let concerned = of_engine.filter(|(container, followed)| {
            what.is_none_or(|what| what.concerns(container, Some(&followed.id)))
        });
        concerned.map(|(container, _)| container.clone()).collect()
    }

    /// Keeps a rule that is in force there. Gives whether that is new, and what has moved.
    fn keep(
        &self,
        container: &Container,
        id: &ContainerId,
        at: Option<NetnsCookie>,
        rule: (RuleName, FollowedRule),
    ) -> (bool, Option<Moved>) {
        let mut list = self.list();
        let followed = list.entry(container.clone()).or_insert_with(|| Followed {
            id: id.clone(),
            at,
            rules: BTreeMap::new(),
            why: String::new(),
        });
        let moved = (followed.at != at || followed.id != *id).then(|| Moved {
            id: std::mem::replace(&mut followed.id, id.clone()),
            at: std::mem::replace(&mut followed.at, at),
            rules: followed.rules.keys().cloned().collect(),
        });
        let (name, rule) = rule;
        let is_new = followed.rules.insert(name, rule.clone()).is_none_or(|before| before != rule);
        (is_new, moved)
    }

    /// Rules that were taken out of this namespace do not follow any more. Gives those that did.
    pub(super) fn forget(&self, at: NetnsCookie, gone: &[RuleName]) -> Vec<RuleName> {
        let mut forgotten = Vec::new();
        self.list().retain(|_, followed| {
            if followed.at == Some(at) {
                forgotten.extend(
                    followed.rules.extract_if(.., |name, _| gone.contains(name)).map(|(name, _)| name),
                );
            }
            !followed.rules.is_empty()
        });
        if !forgotten.is_empty() {
            // An engine that nobody is followed of need not be listened to.
            self.news.send_replace(());
        }
        forgotten
    }

    /// A namespace has died. The containers whose rules wait from now on.
    pub(super) fn bury(&self, at: NetnsCookie) -> Vec<Container> {
        let mut waiting = Vec::new();
        for (container, followed) in self.list().iter_mut().filter(|(_, followed)| followed.at == Some(at)) {
            followed.at = None;
            followed.why = "its namespace has ended".into();
            waiting.push(container.clone());
        }
        self.look_at(waiting.iter().cloned());
        waiting
    }

    fn waits(&self, container: &Container, why: String) {
        if let Some(followed) = self.list().get_mut(container) {
            followed.why = why;
        }
    }

    /// Which container a rule of this namespace follows.
    pub(super) fn container_of(&self, at: NetnsCookie, rule: &RuleName) -> Option<Container> {
        let list = self.list();
        let mut here = list.iter().filter(|(_, followed)| followed.at == Some(at));
        here.find(|(_, followed)| followed.rules.contains_key(rule)).map(|(container, _)| container.clone())
    }
}

impl Followed {
    /// The rules that are not in force anywhere.
    fn waiting(&self, table: &Table) -> Vec<RuleSpec> {
        let netns = self.at.and_then(|at| table.get(&at));
        let current = netns.map(|netns| Arc::clone(&netns.published.load().current));
        let waits = |name: &RuleName| current.as_ref().is_none_or(|current| current.get(name).is_none());
        self.rules.iter().filter(|(name, _)| waits(name)).map(|(_, rule)| rule.spec.clone()).collect()
    }
}

impl Supervisor {
    /// Whether a rule that is to follow its container still shall.
    pub(super) fn may_be_put(&self, target: &Target, spec: &RuleSpec, follow: Follow) -> Result<(), Error> {
        let (Target::Container(container), Follow::Still) = (target, follow) else { return Ok(()) };
        let followed = self.follows.get(container);
        let is_wanted = |followed: &Followed| followed.rules.values().any(|rule| rule.spec == *spec);
        if followed.as_ref().is_some_and(is_wanted) {
            return Ok(());
        }
        Err(Error::new(Code::Failed, format!("target `{target}`: this rule does not follow it any more")))
    }

    /// Whether a rule that comes to where its container is meets no rule of that name there but itself.
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
        let is_there = netns.published.load().current.get(name).is_some();
        if !is_there || self.follows.container_of(netns.cookie, name).as_ref() == Some(container) {
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
        (name, spec, host_netns): (RuleName, RuleSpec, HostNetns),
    ) -> bool {
        let (Target::Container(container), Some(id), Follow::Begin | Follow::Still) = (target, id, follow)
        else {
            return !self.follows.forget(netns.cookie, &[name]).is_empty();
        };
        let rule = FollowedRule { spec, host_netns };
        let (is_new, moved) = self.follows.keep(container, &id, Some(netns.cookie), (name, rule));
        if is_new {
            // From now on its engine has to be listened to.
            self.follows.news.send_replace(());
        }
        if let Some(before) = moved
            && before.id != id
        {
            tracing::warn!(target = %container, before = %before.id, now = %id, "that name is another container's now; rules follow the name");
            self.leave(table, &before).await;
        }
        is_new
    }

    /// Takes rules out of a namespace that their name does not mean any more.
    async fn leave(&self, table: &mut Table, before: &Moved) {
        let Some(netns) = before.at.and_then(|at| table.get(&at)).cloned() else { return };
        if let Err(error) = self.remove_rules(table, &netns, &before.rules).await {
            tracing::error!(netns = %netns.target, %error, "take the rules away where they were");
        }
    }

    /// Keeps a rule for a container that is not running.
    pub(super) async fn wait_for(
        &self,
        container: &Container,
        id: ContainerId,
        why: String,
        (spec, host_netns): (RuleSpec, HostNetns),
    ) -> Attached {
        let _table = self.table.lock().await;
        let taken = self.follows.get(container).map(|followed| followed.rules).unwrap_or_default();
        let free = || (1..).map(RuleName::numbered).find(|name| !taken.contains_key(name));
        let name = spec.name.clone().or_else(free).expect("there are few rules");
        let spec = RuleSpec { name: Some(name.clone()), ..spec };
        self.follows.keep(container, &id, None, (name.clone(), FollowedRule { spec, host_netns }));
        self.follows.waits(container, why);
        // It may run by now.
        self.follows.look_at([container.clone()]);
        tracing::info!(target = %container, rule = %name, "the rule waits until the container runs");
        Attached {
            schema: SCHEMA,
            result: AttachResult::Waiting,
            dry_run: false,
            target: Target::Container(container.clone()),
            cookie: 0,
            rule: name,
            warnings: Vec::new(),
            foreign_programs: Vec::new(),
            existing_connections: 0,
        }
    }

    /// Forgets rules that wait for a container; `None` where none does.
    pub(super) fn stop_waiting(&self, target: &Target, rule: Option<&RuleName>) -> Option<Detached> {
        let Target::Container(container) = target else { return None };
        let mut list = self.follows.list();
        let followed = list.get_mut(container)?;
        let gone = followed.rules.extract_if(.., |name, _| rule.is_none_or(|rule| rule == name));
        let gone: Vec<_> = gone.map(|(name, _)| name).collect();
        if followed.rules.is_empty() {
            list.remove(container);
        }
        self.follows.news.send_replace(());
        (!gone.is_empty()).then(|| Detached {
            schema: SCHEMA,
            result: "detached".into(),
            target: target.clone(),
            cookie: 0,
            rules: gone,
            steered: false,
            connections: 0,
        })
    }

    /// The rules that wait, of all containers or of one.
    pub(super) fn waiting(&self, table: &Table, only: Option<&Target>) -> Vec<WaitingView> {
        let list = self.follows.list();
        let views = list.iter().map(|(container, followed)| WaitingView {
            target: Target::Container(container.clone()),
            container: followed.id.to_string(),
            why: followed.why.clone(),
            rules: followed.waiting(table),
        });
        views.filter(|view| !view.rules.is_empty() && only.is_none_or(|only| *only == view.target)).collect()
    }
}
