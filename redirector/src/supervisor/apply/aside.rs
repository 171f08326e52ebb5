//! Namespaces of the daemon's own file that cannot be made: the rest of the file is in force without them, and they are tried
//! again.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Places, Request, There, Unplanned, plan::Planner};
use crate::{
    config::{Prune, RuleName, Target, file::NamespaceSpec},
    control::{Applied, Caller, Refusal, WaitingView},
    netns::NetnsCookie,
    supervisor::Supervisor,
};

/// Between two tries to make what could not be made.
const RETRY: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Clone, Debug)]
pub(in crate::supervisor) struct Aside {
    pub(in crate::supervisor) spec: NamespaceSpec,
    why: String,
    /// Where its target led, if it led anywhere.
    at: Option<NetnsCookie>,
}

/// Those of the file that was applied last.
#[derive(Debug, Default)]
pub(in crate::supervisor) struct SetAside {
    state: Mutex<State>,
    /// How many they are.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    list: Vec<Aside>,
    /// How often the list was replaced: what was begun with another list is outdated.
    version: u64,
}

/// Another try.
pub(super) struct Again {
    version: u64,
    /// Where the target of each entry led before: elsewhere the rules that are there are not to be replaced.
    at: Vec<Option<NetnsCookie>>,
}

impl Aside {
    pub(super) fn why(&self) -> &str {
        &self.why
    }

    /// Whether it is about this target, or about the namespace where another one leads.
    fn is_of(&self, target: &Target, at: Option<NetnsCookie>) -> bool {
        self.spec.target == *target || (at.is_some() && self.at == at)
    }
}

impl Again {
    /// Whether what is there may go.
    pub(super) fn replaces(&self, netns: NetnsCookie) -> bool {
        self.at.contains(&Some(netns))
    }

    /// Where the target of an entry led before.
    pub(super) fn at(&self, entry: usize) -> Option<NetnsCookie> {
        self.at.get(entry).copied().flatten()
    }
}

impl SetAside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::supervisor) fn list(&self) -> Vec<Aside> {
        self.state().list.clone()
    }

    /// Whether a try is outdated.
    pub(super) fn is_outdated(&self, again: &Again) -> bool {
        self.state().version != again.version
    }

    /// From now on it is these.
    pub(super) fn replace(&self, list: Vec<Aside>) {
        let mut state = self.state();
        state.list = list;
        state.version += 1;
        self.count_them(&state);
    }

    /// How many they are, and each change of that.
    pub(in crate::supervisor) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    fn count_them(&self, state: &State) {
        let now = state.list.len();
        self.count.send_if_modified(|count| std::mem::replace(count, now) != now);
    }

    /// Somebody does not want what is set aside for this target, or for the namespace where it leads. Gives the rules.
    pub(in crate::supervisor) fn forget(
        &self,
        (target, at): (&Target, Option<NetnsCookie>),
        rule: Option<&RuleName>,
    ) -> Vec<RuleName> {
        let mut state = self.state();
        let mut gone = Vec::new();
        for one in state.list.iter_mut().filter(|one| one.is_of(target, at)) {
            let rules = one
                .spec
                .rules
                .extract_if(.., |spec| rule.is_none_or(|rule| spec.name.as_ref() == Some(rule)));
            gone.extend(rules.filter_map(|spec| spec.name));
        }
        state.list.retain(|one| !one.spec.rules.is_empty());
        state.version += u64::from(!gone.is_empty());
        self.count_them(&state);
        gone
    }

    /// For `list`: all, or those of a target and of the namespace where that leads.
    pub(in crate::supervisor) fn view(
        &self,
        only: Option<(&Target, Option<NetnsCookie>)>,
    ) -> Vec<WaitingView> {
        let state = self.state();
        let meant = state.list.iter().filter(|one| only.is_none_or(|(target, at)| one.is_of(target, at)));
        let view = |Aside { spec, why, .. }: &Aside| WaitingView {
            target: spec.target.clone(),
            container: String::new(),
            why: why.clone(),
            rules: spec.rules.clone(),
        };
        meant.map(view).collect()
    }
}

impl Places {
    /// What is left out of the file, entry by entry: those that could not be made, and others that mean the same namespace.
    pub(super) fn left_out(&self, request: &Request) -> BTreeMap<usize, Aside> {
        let aside = |entry: usize, why: &str, at| Aside {
            spec: request.namespaces[entry].clone(),
            why: why.to_owned(),
            at,
        };
        let unopened = request.aside().iter();
        let unopened =
            unopened.map(|(entry, why)| (*entry, aside(*entry, &why.message, request.was_at(*entry))));
        let mut all: BTreeMap<_, _> = unopened.collect();
        for there in &self.aside {
            let why = there.entries.iter().find_map(|(entry, _)| request.aside().get(entry));
            let Some(why) = why.map(|why| &why.message) else { continue };
            let of_file = there.entries.iter().filter(|(entry, _)| request.discovered(*entry).is_none());
            all.extend(of_file.map(|(entry, _)| (*entry, aside(*entry, why, Some(there.found.cookie)))));
        }
        all
    }
}

impl Planner<'_> {
    /// The targets whose rules stay as they are, because they are set aside.
    pub(super) fn set_aside(&self, aside: &[There]) -> HashSet<Target> {
        let with_these = aside.iter().flat_map(|there| there.entries.iter().map(|(entry, _)| *entry));
        let entries = self.request.aside().keys().copied().chain(with_these);
        entries.map(|entry| self.request.namespaces[entry].target.clone()).collect()
    }
}

impl Supervisor {
    /// Tries again what could not be made, until the daemon ends.
    pub(in crate::supervisor) async fn retry_set_aside(self: Arc<Self>) {
        loop {
            tokio::time::sleep(RETRY).await;
            if self.is_ending() {
                return;
            }
            self.complete_black_holes().await;
            self.retry_once().await;
        }
    }

    async fn retry_once(&self) {
        let (list, version) = {
            let state = self.set_aside.state();
            (state.list.clone(), state.version)
        };
        if list.is_empty() {
            return;
        }
        let at = list.iter().map(|one| one.at).collect();
        let namespaces = list.iter().map(|one| one.spec.clone()).collect();
        let none = (BTreeMap::new(), &BTreeMap::new());
        let mut request = Request::new(namespaces, (Prune::No, false), none).again(Again { version, at });
        let caller = Caller { pid: i32::try_from(std::process::id()).ok(), uid: Some(0) };
        loop {
            match self.try_apply(caller, &request, &[]).await {
                Ok(applied) => return tell(&list, &applied),
                Err(Unplanned::Outdated(_)) => return,
                Err(Unplanned::Refused(error)) => {
                    if let Err(error) = request.set_aside(error) {
                        tracing::debug!(%error, "try again what was set aside");
                        return;
                    }
                }
            }
        }
    }

    /// Makes what `drop` leads to where there was no port for it.
    async fn complete_black_holes(&self) {
        let table = self.table.lock().await;
        for netns in table.values() {
            if let Err(error) = netns.complete_black_hole().await {
                tracing::error!(netns = %netns.target, %error, "make what `drop` leads to");
            }
        }
    }
}

/// Tells what has become of another try.
fn tell(before: &[Aside], applied: &Applied) {
    let left: BTreeMap<usize, &Refusal> =
        applied.set_aside.iter().map(|refusal| (refusal.namespace, refusal)).collect();
    for (index, one) in before.iter().enumerate() {
        let target = &one.spec.target;
        match left.get(&index) {
            None => tracing::info!(%target, "what was set aside is in force"),
            Some(why) if why.message != one.why => {
                tracing::error!(%target, hint = why.hint, "still set aside: {}", why.message);
            }
            Some(_) => {}
        }
    }
}
