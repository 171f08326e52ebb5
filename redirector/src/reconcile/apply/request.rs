//! What is to be applied: what the file names, and the containers that it has looked for.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    scope::SetScope,
    set_aside::{Again, EntryAside, SetAside},
    wanted::{Follower, Waits, Wanted, refusal, refuse_if_any},
};
use crate::{
    config::{Container, Engine, Origin, RuleSpec, SetName, Target, file::NamespaceSpec},
    control::{Code, Error, Refusal},
    intent::{HostNetns, Prune},
    locate::{ContainerId, EngineError},
    netns::NetnsCookie,
    reconcile::{
        destinations::Missing,
        discover::{AllFound, OwnRules},
    },
};

/// All that is wanted.
pub(crate) struct Request {
    /// Those of the file, then those of containers that were found.
    pub(crate) namespaces: Vec<NamespaceSpec>,
    pub(crate) prune: Prune,
    pub(crate) dry_run: bool,
    /// The containers that were found.
    pub(crate) found: AllFound,
    /// How many are of the file.
    of_file: usize,
    /// Of which set each of these is.
    sets: Vec<SetName>,
    /// Whose rules may go by it.
    scope: SetScope,
    /// Of each of the others: the container.
    ids: Vec<(Engine, ContainerId)>,
    /// Of those: rules that cannot be in force now, or all of an entry, and why. They wait.
    set_aside: HashMap<(usize, Option<usize>), String>,
    /// Of those: rules that cannot even wait.
    dropped: HashSet<(usize, usize)>,
    /// What becomes of rules whose target or destination is not there.
    missing: Missing,
    /// What is done with namespaces of the file that cannot be made.
    mode: Mode,
    /// Those, and why.
    aside: BTreeMap<usize, Refusal>,
}

/// Whether namespaces that cannot be made keep the rest of a file from being in force.
enum Mode {
    /// All or nothing.
    Strict,
    /// They are set aside, unless the file itself is wrong.
    Lenient,
    /// These are what was set aside: nothing else becomes other.
    Again(Again),
}

impl Request {
    /// Containers of engines that are `deaf` wait.
    pub(crate) fn new(
        mut namespaces: Vec<NamespaceSpec>,
        (prune, dry_run): (Prune, bool),
        (found, deaf): (AllFound, &BTreeMap<Engine, EngineError>),
        others: &OwnRules,
    ) -> Self {
        let (of_file, own) = (namespaces.len(), OwnRules::of(&namespaces));
        let (mut ids, mut set_aside) = (Vec::new(), HashMap::new());
        let all =
            found.iter().flat_map(|(engine, found)| found.iter().map(move |(id, one)| (*engine, id, one)));
        for (engine, id, one) in all {
            if let Some(why) = deaf.get(&engine) {
                set_aside.insert((namespaces.len(), None), why.to_string());
            }
            let is_own = |rule: &RuleSpec| {
                let has =
                    |own: &OwnRules| rule.name.as_ref().is_some_and(|name| own.has(&one.container, id, name));
                has(&own) || has(others)
            };
            let rules = one.rules.iter().map(|(_, rule)| rule.clone()).filter(|rule| !is_own(rule)).collect();
            let target = Target::Container(one.container.clone());
            namespaces.push(NamespaceSpec { target, follow: None, host_netns: false, rules });
            ids.push((engine, id.clone()));
        }
        let (dropped, missing, mode, aside) =
            (HashSet::new(), Missing::Refused, Mode::Strict, BTreeMap::new());
        let (sets, scope) = (vec![SetName::default(); of_file], SetScope::default());
        Self {
            namespaces,
            prune,
            dry_run,
            found,
            of_file,
            sets,
            scope,
            ids,
            set_aside,
            dropped,
            missing,
            mode,
            aside,
        }
    }

    /// Its entries are of these sets, and it is about those of the scope.
    pub(crate) fn of_sets(self, sets: Vec<SetName>, scope: SetScope) -> Self {
        Self { sets, scope, ..self }
    }

    /// All of it is of one set.
    #[cfg(test)]
    pub(crate) fn of_set(self, set: SetName) -> Self {
        let sets = vec![set.clone(); self.of_file];
        self.of_sets(sets, SetScope::of(set))
    }

    /// Whose rules may go by it.
    pub(super) fn scope(&self) -> &SetScope {
        &self.scope
    }

    /// Of which set an entry is; of none where its container was found by a label.
    pub(super) fn set_of(&self, entry: usize) -> Option<SetName> {
        self.sets.get(entry).cloned()
    }

    /// The entries of the file, with their sets.
    pub(super) fn of_file(&self) -> impl Iterator<Item = (&SetName, &NamespaceSpec)> {
        self.sets.iter().zip(&self.namespaces)
    }

    /// What is missing is waited for.
    pub(crate) fn waiting(self) -> Self {
        Self { missing: Missing::Later, ..self }
    }

    /// Namespaces that cannot be made are to be set aside, and what is missing is waited for.
    pub(crate) fn lenient(self) -> Self {
        Self { mode: Mode::Lenient, ..self.waiting() }
    }

    /// Whether rules wait for what is missing.
    pub(super) fn waits_for_missing(&self) -> bool {
        self.missing != Missing::Refused
    }

    /// It is all that was set aside.
    pub(crate) fn again(self, again: Again) -> Self {
        Self { mode: Mode::Again(again), ..self.waiting() }
    }

    /// Whether it is only what was set aside.
    pub(crate) fn is_again(&self) -> bool {
        matches!(self.mode, Mode::Again(_))
    }

    /// Where the target of an entry led when it was set aside, if it was and it did.
    pub(crate) fn was_at(&self, entry: usize) -> Option<NetnsCookie> {
        match &self.mode {
            Mode::Again(again) => again.at(entry),
            Mode::Strict | Mode::Lenient => None,
        }
    }

    /// Whether rules of somebody can go by it.
    pub(super) fn goes(&self, origin: Origin) -> bool {
        match origin {
            Origin::File => true,
            Origin::Api => self.prune == Prune::Api,
            Origin::Lease => false,
        }
    }

    /// It has been made, and this is left out of it. Whether it was only another try at what was set aside.
    pub(super) fn settles(&self, set_aside: &SetAside, left_out: Vec<EntryAside>) -> bool {
        match &self.mode {
            Mode::Again(again) => set_aside.settle(again, left_out),
            Mode::Strict | Mode::Lenient => set_aside.replace(&self.scope, left_out),
        }
        self.is_again()
    }

    /// Whether it is not any more what was set aside.
    pub(crate) fn is_outdated(&self, set_aside: &SetAside) -> bool {
        matches!(&self.mode, Mode::Again(again) if set_aside.is_outdated(again))
    }

    /// Whether rules of a file that are there may go, or only what is missing may come.
    pub(crate) fn replaces(&self, netns: NetnsCookie) -> bool {
        match &self.mode {
            Mode::Again(again) => again.replaces(netns),
            Mode::Strict | Mode::Lenient => true,
        }
    }

    /// The namespaces of the file that are set aside, by entry.
    pub(crate) fn aside(&self) -> &BTreeMap<usize, Refusal> {
        &self.aside
    }

    /// Why an entry is left out; of one that means the same namespace as another, why that one is.
    pub(crate) fn why_aside(&self, entry: usize, aside: &EntryAside) -> Refusal {
        let of_other = || refusal(entry, None, Error::new(Code::Failed, aside.why()));
        self.aside.get(&entry).cloned().unwrap_or_else(of_other)
    }

    /// The container that an entry is about, where it was found by a label.
    pub(crate) fn discovered(&self, entry: usize) -> Option<&ContainerId> {
        self.ids.get(entry.checked_sub(self.of_file)?).map(|(_, id)| id)
    }

    /// The same as a target.
    pub(crate) fn by_id(&self, entry: usize) -> Option<Target> {
        let (engine, id) = self.ids.get(entry.checked_sub(self.of_file)?)?;
        Some(Target::Container(Container { engine: *engine, name: id.to_string() }))
    }

    /// What an entry waits for, if it is not to be in force now.
    pub(crate) fn waits(&self, entry: usize) -> Option<Waits> {
        self.waits_for(entry, self.set_aside.get(&(entry, None))?)
    }

    fn waits_for(&self, entry: usize, why: &str) -> Option<Waits> {
        let (id, target) = (self.discovered(entry)?.clone(), self.namespaces[entry].target.clone());
        Some(Waits { entry, target, id: Some(id), why: why.to_owned(), is_unknown: false })
    }

    /// Single rules that are not to be in force now.
    pub(crate) fn waiting_rules(&self) -> Vec<(Waits, Wanted)> {
        let rules = self.set_aside.iter().filter_map(|(at, why)| Some((at.0, at.1?, why)));
        let mut rules: Vec<_> = rules
            .filter(|(entry, rule, _)| {
                !self.set_aside.contains_key(&(*entry, None)) && !self.dropped.contains(&(*entry, *rule))
            })
            .collect();
        rules.sort_unstable();
        let wanted = |(entry, rule, why): (usize, usize, &String)| {
            let wanted = self.all_of(entry, None).nth(rule)?;
            Some((self.waits_for(entry, why)?, wanted))
        };
        rules.into_iter().filter_map(wanted).collect()
    }

    /// Nothing that is wrong with a container that was found keeps others from having their rules. Nor does a namespace of
    /// the file that cannot be made, where the request is lenient.
    ///
    /// # Errors
    ///
    /// What is wrong with the file itself.
    pub(crate) fn set_aside(&mut self, error: Error) -> Result<(), Error> {
        let (others, of_file): (Vec<Refusal>, Vec<Refusal>) =
            error.problems.iter().cloned().partition(|problem| problem.namespace >= self.of_file);
        let (of_namespaces, of_file): (Vec<_>, Vec<_>) =
            of_file.into_iter().partition(|problem| match self.mode {
                Mode::Strict => false,
                Mode::Lenient => !problem.is_flaw,
                Mode::Again(_) => true,
            });
        if others.is_empty() && of_namespaces.is_empty() {
            return Err(error);
        }
        refuse_if_any(of_file)?;
        let before = (self.set_aside.len(), self.dropped.len(), self.aside.len());
        for problem in of_namespaces {
            self.aside.entry(problem.namespace).or_insert(problem);
        }
        let waited: HashSet<_> = self.set_aside.keys().copied().collect();
        for Refusal { namespace: entry, rule, message, .. } in others {
            match rule {
                Some(rule) if waited.contains(&(entry, Some(rule))) || waited.contains(&(entry, None)) => {
                    self.drop_rule(entry, rule, message);
                }
                _ => drop(self.set_aside.insert((entry, rule), message)),
            }
        }
        // Each time there is less that can be wrong.
        let after = (self.set_aside.len(), self.dropped.len(), self.aside.len());
        if before == after { Err(error) } else { Ok(()) }
    }

    fn drop_rule(&mut self, entry: usize, rule: usize, why: String) {
        self.dropped.insert((entry, rule));
        let (engine, id) = &self.ids[entry - self.of_file];
        let one = self.found.get_mut(engine).and_then(|found| found.get_mut(id));
        let name = &self.namespaces[entry].rules[rule].name;
        if let Some(one) = one
            && let Some((by, _)) = one.rules.iter().find(|(_, rule)| rule.name == *name)
        {
            one.by.entry(*by).or_default().push(why);
        }
    }

    /// What is wrong with containers that were found, a sentence each; that their engine does not answer apart.
    pub(crate) fn warnings(&self, deaf: &BTreeMap<Engine, EngineError>) -> Vec<String> {
        let all = self.found.values().flat_map(BTreeMap::values);
        let wrong =
            all.flat_map(|one| one.by.values().flatten().map(move |why| format!("{}: {why}", one.container)));
        let is_told =
            |at: &(usize, Option<usize>)| at.1.is_some_and(|rule| self.dropped.contains(&(at.0, rule)));
        let is_deaf = |entry: usize| deaf.contains_key(&self.ids[entry - self.of_file].0);
        let aside = self.set_aside.iter().filter(|(at, _)| !(is_told(at) || at.1.is_none() && is_deaf(at.0)));
        let mut aside: Vec<_> =
            aside.map(|(at, why)| format!("{}: waits: {why}", self.namespaces[at.0].target)).collect();
        aside.sort();
        wrong.chain(aside).collect()
    }

    /// The rules that one entry wants to be in force, or to wait, and the container that it leads to.
    pub(crate) fn wanted_by(&self, entry: usize, id: Option<&ContainerId>) -> impl Iterator<Item = Wanted> {
        let is_whole = self.set_aside.contains_key(&(entry, None));
        self.all_of(entry, id).filter(move |wanted| {
            let (entry, rule) = wanted.at;
            !self.dropped.contains(&(entry, rule))
                && (is_whole || !self.set_aside.contains_key(&(entry, Some(rule))))
        })
    }

    /// The rules of an entry whose target is not there: each waits for it.
    pub(super) fn waiting_by(&self, entry: usize) -> impl Iterator<Item = Wanted> {
        let target = &self.namespaces[entry].target;
        self.wanted_by(entry, None).map(move |mut wanted| {
            if wanted.follows.is_empty() {
                let target = target.clone();
                wanted.follows.push(Follower { target, id: None, discovered: false, once: true });
            }
            wanted
        })
    }

    fn all_of(&self, entry: usize, id: Option<&ContainerId>) -> impl Iterator<Item = Wanted> {
        let (spec, absent) = (&self.namespaces[entry], self.missing);
        let target = Some(&spec.target).filter(|_| spec.follows()).cloned();
        let host_netns = if spec.host_netns { HostNetns::Allowed } else { HostNetns::Refused };
        let (id, discovered) = (id.cloned(), self.discovered(entry).is_some());
        spec.rules().enumerate().map(move |(rule, spec)| {
            let follower =
                target.clone().map(|target| Follower { target, id: id.clone(), discovered, once: false });
            Wanted {
                at: (entry, rule),
                rule: Arc::new(spec),
                follows: follower.into_iter().collect(),
                host_netns,
                absent,
            }
        })
    }
}

#[cfg(test)]
mod tests;
