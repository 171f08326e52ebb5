//! Namespaces of the daemon's own file that cannot be made: the rest of the file is in force without them, and they are tried
//! again.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::scope::SetScope;
use crate::{
    config::{RuleName, SetName, Target, file::NamespaceSpec},
    control::WaitingView,
    netns::NetnsCookie,
};

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct EntryAside {
    pub(crate) spec: NamespaceSpec,
    pub(super) set: SetName,
    why: String,
    /// Where its target led, if it led anywhere.
    at: Option<NetnsCookie>,
}

/// Those of the file that was applied last.
#[derive(Debug, Default)]
pub(crate) struct SetAside {
    state: Mutex<State>,
    /// How many they are.
    count: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct State {
    list: Vec<EntryAside>,
    /// How often the list was replaced: what was begun with another list is outdated.
    version: u64,
}

/// Another try.
pub(crate) struct Again {
    version: u64,
    tried: Vec<EntryAside>,
    /// Where the target of each entry led before: elsewhere the rules that are there are not to be replaced.
    at: Vec<Option<NetnsCookie>>,
}

impl EntryAside {
    pub(super) fn new((spec, set): (NamespaceSpec, SetName), why: String, at: Option<NetnsCookie>) -> Self {
        Self { spec, set, why, at }
    }

    pub(crate) fn why(&self) -> &str {
        &self.why
    }

    /// Whether it is about this target, or about the namespace where another one leads.
    fn is_of(&self, target: &Target, at: Option<NetnsCookie>) -> bool {
        self.spec.target == *target || (at.is_some() && self.at == at)
    }
}

impl Again {
    /// Whether what is there may go.
    pub(crate) fn replaces(&self, netns: NetnsCookie) -> bool {
        self.at.contains(&Some(netns))
    }

    /// Where the target of an entry led before.
    pub(crate) fn at(&self, entry: usize) -> Option<NetnsCookie> {
        self.at.get(entry).copied().flatten()
    }
}

impl SetAside {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn list(&self) -> Vec<EntryAside> {
        self.state().list.clone()
    }

    /// Whether a try is outdated.
    pub(crate) fn is_outdated(&self, again: &Again) -> bool {
        self.state().version != again.version
    }

    /// From now on it is these, and what is of other sets.
    pub(super) fn replace(&self, scope: &SetScope, list: Vec<EntryAside>) {
        let mut state = self.state();
        state.list.retain(|one| !scope.owns(Some(&one.set)));
        state.list.extend(list);
        state.version += 1;
        self.count_them(&state);
    }

    /// All of it has been tried again, and these are left. What somebody has done to the list meanwhile is not undone.
    pub(super) fn settle(&self, again: &Again, left: Vec<EntryAside>) {
        let mut state = self.state();
        if state.version == again.version {
            state.list = left;
        } else {
            let is_among = |list: &[EntryAside], one: &EntryAside| {
                list.iter().any(|other| other.spec.target == one.spec.target)
            };
            state.list.retain(|one| !is_among(&again.tried, one) || is_among(&left, one));
        }
        state.version += 1;
        self.count_them(&state);
    }

    /// All of it, for another try.
    pub(super) fn again(&self) -> (Vec<EntryAside>, Again) {
        let State { list, version } = &*self.state();
        (
            list.clone(),
            Again { version: *version, tried: list.clone(), at: list.iter().map(|one| one.at).collect() },
        )
    }

    /// How many they are, and each change of that.
    pub(crate) fn count(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
    }

    fn count_them(&self, state: &State) {
        let now = state.list.len();
        self.count.send_if_modified(|count| std::mem::replace(count, now) != now);
    }

    /// Somebody does not want what is set aside for this target, or for the namespace where it leads. Gives the rules.
    pub(crate) fn forget(
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
    pub(crate) fn view(&self, only: Option<(&Target, Option<NetnsCookie>)>) -> Vec<WaitingView> {
        let state = self.state();
        let meant = state.list.iter().filter(|one| only.is_none_or(|(target, at)| one.is_of(target, at)));
        let view = |EntryAside { spec, set, why, .. }: &EntryAside| WaitingView {
            target: spec.target.clone(),
            container: String::new(),
            why: why.clone(),
            set: Some(set.clone()),
            rules: spec.rules.clone(),
        };
        meant.map(view).collect()
    }
}

#[cfg(test)]
mod tests;
