//! Which rules follow which containers.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    config::{Container, Engine, Origin, RuleName, RuleSpec, Target},
    locate::{ContainerId, Happened},
    netns::NetnsCookie,
    observe::RateLimit,
    supervisor::attach::HostNetns,
};

/// A rule that follows.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct Followed {
    pub(in crate::supervisor) spec: RuleSpec,
    pub(in crate::supervisor) host_netns: HostNetns,
    pub(in crate::supervisor) origin: Origin,
    /// The container that had the name last.
    pub(in crate::supervisor) id: ContainerId,
    /// Where it was last.
    pub(in crate::supervisor) at: Option<NetnsCookie>,
    /// What keeps it waiting, when it is not there.
    pub(in crate::supervisor) why: String,
    /// Its container was found by a label, and is what it follows, not the name.
    pub(in crate::supervisor) discovered: bool,
}

type Key = (Container, RuleName);

/// Every rule that follows a container. Changed with the table's lock held, but for the words of [`Followed::why`].
#[derive(Debug)]
pub(in crate::supervisor) struct Follows {
    list: Mutex<BTreeMap<Key, Followed>>,
    /// Containers that a follower has to look at.
    due: Mutex<BTreeSet<Container>>,
    /// Tells the followers that something of this has changed.
    news: watch::Sender<()>,
    pub(super) said_stuck: RateLimit,
}

impl Default for Follows {
    fn default() -> Self {
        let (list, due) = (Mutex::default(), Mutex::default());
        Self { list, due, news: watch::Sender::new(()), said_stuck: RateLimit::default() }
    }
}

impl Follows {
    fn list(&self) -> MutexGuard<'_, BTreeMap<Key, Followed>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ready when something has changed after this call.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Has a follower look at these.
    pub(in crate::supervisor) fn look_at(&self, containers: impl IntoIterator<Item = Container>) {
        self.due.lock().unwrap_or_else(PoisonError::into_inner).extend(containers);
        self.news.send_replace(());
    }

    /// A container of this engine that has to be looked at, and is not being looked at.
    pub(super) fn next_due(&self, engine: Engine, busy: &BTreeSet<Container>) -> Option<Container> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let next = due.iter().find(|one| one.engine == engine && !busy.contains(one))?.clone();
        due.take(&next)
    }

    /// All of it, by container.
    pub(in crate::supervisor) fn all(&self) -> Vec<(Container, Followed)> {
        self.list().iter().map(|((container, _), followed)| (container.clone(), followed.clone())).collect()
    }

    pub(in crate::supervisor) fn get(&self, container: &Container, name: &RuleName) -> Option<Followed> {
        self.list().get(&(container.clone(), name.clone())).cloned()
    }

    /// The rules of containers that were found by a label.
    pub(in crate::supervisor) fn discovered(&self) -> Vec<(Container, RuleName, Followed)> {
        let list = self.list();
        let found = list.iter().filter(|(_, followed)| followed.discovered);
        found.map(|((one, name), followed)| (one.clone(), name.clone(), followed.clone())).collect()
    }

    /// The rules of one container.
    pub(super) fn of_container(&self, container: &Container) -> Vec<(RuleName, Followed)> {
        let list = self.list();
        let of_it = list.iter().filter(|((one, _), _)| one == container);
        of_it.map(|((_, name), followed)| (name.clone(), followed.clone())).collect()
    }

    /// The containers of an engine that `what` may be about; all without it.
    pub(super) fn of_engine(&self, engine: Engine, what: Option<&Happened>) -> BTreeSet<Container> {
        let list = self.list();
        let concerned = list.iter().filter(|((container, _), followed)| {
            container.engine == engine && what.is_none_or(|what| what.concerns(container, Some(&followed.id)))
        });
        concerned.map(|((container, _), _)| container.clone()).collect()
    }

    /// The containers whose rule of that name is in this namespace: one that several names have led to has several.
    pub(in crate::supervisor) fn owners(&self, at: NetnsCookie, name: &RuleName) -> Vec<Container> {
        let list = self.list();
        let here = list.iter().filter(|((_, rule), followed)| rule == name && followed.at == Some(at));
        here.map(|((container, _), _)| container.clone()).collect()
    }

    /// Whether a rule is there only because its containers were found by a label.
    pub(in crate::supervisor) fn is_discovered(&self, at: NetnsCookie, name: &RuleName) -> bool {
        let list = self.list();
        let mut here = list.iter().filter(|((_, rule), one)| rule == name && one.at == Some(at)).peekable();
        here.peek().is_some() && here.all(|(_, one)| one.discovered)
    }

    /// Keeps a rule. Gives what was known of it before.
    pub(in crate::supervisor) fn keep(
        &self,
        container: &Container,
        name: &RuleName,
        followed: Followed,
    ) -> Option<Followed> {
        let before = self.list().insert((container.clone(), name.clone()), followed);
        if before.is_none() {
            // From now on its engine has to be listened to.
            self.news.send_replace(());
        }
        before
    }

    /// A name for a rule that has none: that of one that says the same, else `rule-N`, the lowest N that is free.
    pub(super) fn name_for(&self, container: &Container, spec: &RuleSpec) -> RuleName {
        let rules = self.of_container(container);
        let unnamed = |spec: &RuleSpec| RuleSpec { name: None, ..spec.clone() };
        let same = rules.iter().find(|(_, followed)| unnamed(&followed.spec) == unnamed(spec));
        let free = || (1..).map(RuleName::numbered).find(|name| rules.iter().all(|(taken, _)| taken != name));
        same.map(|(name, _)| name.clone()).or_else(free).expect("there are few rules")
    }

    /// The containers that a rule of such a name follows: one of that name that is gone may have been in its way.
    pub(in crate::supervisor) fn look_at_namesakes(&self, gone: &[RuleName]) {
        let list = self.list();
        let namesakes = list.keys().filter(|(_, name)| gone.contains(name));
        let namesakes: BTreeSet<_> = namesakes.map(|(container, _)| container.clone()).collect();
        drop(list);
        if !namesakes.is_empty() {
            self.look_at(namesakes);
        }
    }

    fn remove_where(&self, mut is_gone: impl FnMut(&Key, &Followed) -> bool) -> Vec<RuleName> {
        let mut list = self.list();
        let gone = list.extract_if(.., |key, followed| is_gone(key, followed));
        let gone: Vec<_> = gone.map(|((_, name), _)| name).collect();
        drop(list);
        if !gone.is_empty() {
            // An engine that nobody is followed of need not be listened to.
            self.news.send_replace(());
        }
        gone
    }

    /// Rules that were taken out of this namespace do not follow any more. Gives those that did.
    pub(in crate::supervisor) fn forget(&self, at: NetnsCookie, gone: &[RuleName]) -> Vec<RuleName> {
        self.remove_where(|(_, name), followed| followed.at == Some(at) && gone.contains(name))
    }

    /// Rules of a container do not follow it any more, wherever they are. Gives those that did.
    pub(in crate::supervisor) fn remove(
        &self,
        target: &Target,
        is_gone: impl Fn(&RuleName) -> bool,
    ) -> Vec<RuleName> {
        let Target::Container(container) = target else { return Vec::new() };
        self.remove_where(|(one, name), _| one == container && is_gone(name))
    }

    /// From now on the rule of that name there follows this container, and no other.
    pub(super) fn take_over(&self, container: &Container, at: NetnsCookie, name: &RuleName) {
        self.remove_where(|(one, rule), followed| {
            one != container && rule == name && followed.at == Some(at)
        });
    }

    /// A file was applied: these are all of the rules that follow for files, and these of others do not any more.
    pub(in crate::supervisor) fn replace(
        &self,
        of_files: Vec<(Container, RuleName, Followed)>,
        gone: &HashSet<(Container, RuleName)>,
    ) {
        let mut list = self.list();
        list.retain(|key, followed| followed.origin != Origin::File && !gone.contains(key));
        let containers: BTreeSet<_> = of_files.iter().map(|(container, ..)| container.clone()).collect();
        list.extend(of_files.into_iter().map(|(container, name, followed)| ((container, name), followed)));
        drop(list);
        // They may have gone elsewhere meanwhile. An engine that nobody is followed of need not be listened to.
        self.look_at(containers);
    }

    /// These rules follow for a file as well, and these of others do not any more.
    pub(in crate::supervisor) fn add(
        &self,
        of_file: Vec<(Container, RuleName, Followed)>,
        gone: &HashSet<(Container, RuleName)>,
    ) {
        self.list().retain(|key, _| !gone.contains(key));
        for (container, name, followed) in of_file {
            self.keep(&container, &name, followed);
        }
    }

    /// A namespace has died. The containers whose rules wait from now on.
    pub(in crate::supervisor) fn bury(&self, at: NetnsCookie) -> BTreeSet<Container> {
        let mut waiting = BTreeSet::new();
        for ((container, _), followed) in self.list().iter_mut().filter(|(_, one)| one.at == Some(at)) {
            followed.at = None;
            followed.why = "its namespace has ended".into();
            waiting.insert(container.clone());
        }
        self.look_at(waiting.iter().cloned());
        waiting
    }

    /// What keeps rules of a container waiting, as far as they do.
    pub(super) fn wait_because(&self, container: &Container, rule: Option<&RuleName>, why: &str) {
        for ((one, name), followed) in self.list().iter_mut() {
            if one == container && rule.is_none_or(|rule| rule == name) {
                why.clone_into(&mut followed.why);
            }
        }
    }
}
