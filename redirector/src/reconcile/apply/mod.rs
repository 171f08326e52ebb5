//! `apply`: what files want comes into force whole, or not at all.
//!
//! 1. Everything that is named is opened and looked at (`places`), and what is new has its destinations looked up: in nobody's
//!    turn.
//! 2. In the turn of all that it is about, all is compared with what is there (`plan`), made, and switched to
//!    ([`super::commit`]). What fails before the last switch is taken back.

mod places;
mod plan;
mod request;
mod retry;
mod scope;
mod set_aside;
#[cfg(test)]
mod testing;
mod twins;
mod waiting;
mod wanted;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::{StreamExt as _, stream};

use self::{
    places::{AT_ONCE, Led, Located, look_at_all},
    plan::{ApplyPlan, Now, plan, unknown},
    request::Request,
    scope::SetScope,
    wanted::{At, Unplanned, Waits, Wanted, refusal, refuse_if_any},
};
pub(crate) use self::{retry::retry, set_aside::SetAside};
use super::{
    bystanders::taken_from,
    commit::{Undone, commit},
    destinations::whereabouts,
    discover::{OwnRules, gather_all},
    judge::Tells,
    part::{Part, Uncompiled},
    refused::Refused,
    standing::Standing,
    turn::{turn_of, with_places},
    world::World,
};
use crate::{
    config::{
        SetName, Target,
        file::{DiscoverSpec, NamespaceSpec, name_found_rules, name_rules},
    },
    control::{
        self, Applied, ApplyRequest, Caller, Change, Code, DiscoverChange, Error, FileSet, Refusal, SCHEMA,
    },
    dial::Whereabouts,
    intent::{Prune, Store, Subject},
    matcher::CompileError,
    netns::NetnsCookie,
    steer::Turn,
};

/// `POST /v1/apply`.
pub(crate) async fn apply(world: &World, caller: Caller, request: ApplyRequest) -> Result<Applied, Error> {
    let Wants { mut namespaces, discover, sets, scope } = Wants::from(&request);
    let ApplyRequest { dry_run, prune, wait, lenient, .. } = request;
    let prune = if prune { Prune::Api } else { Prune::No };
    check(&mut namespaces, &sets)?;
    // What other sets look for is looked for as before, and their rules for what was found stay.
    let (others, own) = world.discovery.of_sets(|set| !scope.owns(Some(set)));
    let kept = others.len();
    let mut all = [others, discover].concat();
    check_discover(&mut all)?;
    let discover = LookedFor { all, kept };
    let specs = discover.specs();
    let _turn = world.discovery.turn(&specs).await;
    let (found, deaf) = gather_all(world, &specs).await;
    let request = Request::new(namespaces, (prune, dry_run), (found, &deaf), &own);
    let mut request = request.of_sets(sets, scope);
    if lenient {
        request = request.lenient();
    } else if wait {
        request = request.waiting();
    }
    let mut made = Attempt::look(world, caller, &request).await.make(&mut request, &discover).await;
    if let Err(Unplanned::Outdated(_)) = made {
        // Somebody else has changed what was looked at. That does not happen forever.
        made = Attempt::look(world, caller, &request).await.make(&mut request, &discover).await;
    }
    let mut applied = made.map_err(Unplanned::into_error)?;
    let of_found = request.warnings(&deaf);
    let deaf = deaf.values();
    let deaf = deaf.map(|why| format!("{why}; its containers are looked for as soon as it answers"));
    let mut warnings: Vec<_> = deaf.chain(of_found).chain(applied.warnings).collect();
    as_many_as_are_read(&mut warnings);
    applied.warnings = warnings;
    Ok(applied)
}

/// What a request wants, set by set.
struct Wants {
    namespaces: Vec<NamespaceSpec>,
    discover: Vec<(SetName, DiscoverSpec)>,
    /// Of each namespace.
    sets: Vec<SetName>,
    scope: SetScope,
}

impl From<&ApplyRequest> for Wants {
    fn from(request: &ApplyRequest) -> Self {
        let ApplyRequest { namespaces, discover, set, sets, directories, replace, .. } = request;
        let own = FileSet {
            set: set.clone().unwrap_or_default(),
            namespaces: namespaces.clone(),
            discover: discover.clone(),
        };
        // Who names sets has no other beside them, unless there is something in that.
        let is_none = sets.is_empty() && directories.is_empty();
        let is_own = is_none || set.is_some() || !namespaces.is_empty() || !discover.is_empty();
        let all: Vec<_> = Some(own).filter(|_| is_own).into_iter().chain(sets.iter().cloned()).collect();
        let scope = SetScope::these(all.iter().map(|one| one.set.clone()), directories.clone());
        let scope = if *replace { scope.all() } else { scope };
        let mut wants = Self { namespaces: Vec::new(), discover: Vec::new(), sets: Vec::new(), scope };
        for FileSet { set, namespaces, discover } in all {
            wants.sets.extend(namespaces.iter().map(|_| set.clone()));
            wants.namespaces.extend(namespaces);
            wants.discover.extend(discover.into_iter().map(|spec| (set.clone(), spec)));
        }
        wants
    }
}

/// Which containers are looked for.
#[derive(Default)]
struct LookedFor {
    /// By other sets, first, and by the request.
    all: Vec<(SetName, DiscoverSpec)>,
    /// By how many other sets.
    kept: usize,
}

impl LookedFor {
    fn specs(&self) -> Vec<DiscoverSpec> {
        self.all.iter().map(|(_, spec)| spec.clone()).collect()
    }
}

/// One look at all that a request names, and what was looked up for it. However much of the request is left out, nobody is asked
/// again.
struct Attempt<'a> {
    world: &'a World,
    caller: Caller,
    looked: Vec<Led>,
    destinations: HashMap<At, Result<Whereabouts, Error>>,
}

impl<'a> Attempt<'a> {
    async fn look(world: &'a World, caller: Caller, request: &Request) -> Self {
        let looked = look_at_all(world, caller, request).await;
        Self { world, caller, looked, destinations: HashMap::new() }
    }

    /// Makes all of a request that can be, as far as it may be left out what cannot.
    async fn make(mut self, request: &mut Request, discover: &LookedFor) -> Result<Applied, Unplanned> {
        loop {
            match self.try_to(request, discover).await {
                Err(Unplanned::Refused(error)) => request.set_aside(error)?,
                made => return made,
            }
        }
    }

    async fn try_to(&mut self, request: &Request, discover: &LookedFor) -> Result<Applied, Unplanned> {
        let world = self.world;
        // What is wrong is collected, so that all of it is told.
        let mut places = Located::of(&self.looked, request);
        let left_out = places.left_out(request);
        let known = self.look_up(&mut places, request).await;
        let turn = turn_of(world, |store| about(store, &places, request)).await;
        world.goes_on().map_err(Error::from)?;
        let stays = |set: &SetName| !request.scope().owns(Some(set));
        let is_other =
            !request.is_again() && world.discovery.of_sets(stays).0 != discover.all[..discover.kept];
        if request.is_outdated(&world.set_aside) || is_other {
            return Err(Unplanned::Outdated(Refused::OtherFile.into()));
        }
        let outcome = planned(world, &turn, request, places, known)?;
        let ApplyPlan { plan, changes, unchanged, mut warnings } = outcome;
        let compiled = plan.compile(&world.maker.kernel, refuse_part).await;
        let plan = compiled.map_err(uncompiled)?;
        warnings.extend(plan.parts.iter().flat_map(taken_from_bystanders));
        let applied = Applied {
            schema: SCHEMA,
            dry_run: request.dry_run,
            changes,
            discover: discover_changes(&world.discovery.specs(), &discover.specs()),
            unchanged,
            warnings,
            waiting: waiting(&self.looked, request),
            set_aside: left_out.iter().map(|(entry, aside)| request.why_aside(*entry, aside)).collect(),
        };
        if request.dry_run {
            return Ok(applied);
        }
        let followed: BTreeSet<_> = plan.edit.targets().cloned().collect();
        commit(world, "apply", plan).await.map_err(blame)?;
        let left_out = left_out.into_values().collect();
        if request.settles(&world.set_aside, left_out) {
            return Ok(applied);
        }
        let mut own = BTreeMap::<_, Vec<_>>::new();
        for (set, spec) in request.of_file() {
            own.entry(set.clone()).or_default().push(spec);
        }
        let own = own.into_iter().map(|(set, specs)| (set, OwnRules::of(specs))).collect();
        world.discovery.replace(discover.all.clone(), (stays, own), request.found.clone());
        // They may have gone elsewhere meanwhile. Whoever listens to an engine may have to begin, or may stop.
        world.news.look_at(followed);
        tell(&applied, self.caller);
        Ok(applied)
    }

    /// Looks up where destinations are that are not known yet. What cannot be found is refused.
    async fn look_up(&mut self, places: &mut Located, request: &Request) -> HashMap<At, Whereabouts> {
        let (world, caller) = (self.world, self.caller);
        let standing =
            |there: &places::There| world.steered.get(there.found.cookie).as_ref().map(Standing::from);
        let of_place = |there| unknown(standing(there).as_ref(), there, request);
        let rules: Vec<Wanted> = places.there.iter().flat_map(of_place).collect();
        let new: Vec<Wanted> =
            rules.iter().filter(|one| !self.destinations.contains_key(&one.at)).cloned().collect();
        let looked_up = stream::iter(new).map(|wanted| async move {
            let found = whereabouts(world, &wanted.rule, caller, wanted.missing()).await;
            let found = found.and_then(|found| {
                // Nobody says which process is meant by now.
                let is_of_process = found.elsewhere.as_ref().is_some_and(|one| one.is_found_by_process());
                let recycled = || Refused::Recycled(format!("destination `{}`", wanted.rule.to));
                if request.is_again() && is_of_process { Err(recycled().into()) } else { Ok(found) }
            });
            (wanted.at, found)
        });
        let looked_up: Vec<_> = looked_up.buffered(AT_ONCE).collect().await;
        self.destinations.extend(looked_up);
        let mut known = HashMap::new();
        for one in rules {
            match &self.destinations[&one.at] {
                Ok(found) => drop(known.insert(one.at, found.clone())),
                Err(error) => places.refused.push(refusal(one.at.0, Some(one.at.1), error.clone())),
            }
        }
        known
    }
}

/// What new rules of a namespace take from others.
fn taken_from_bystanders(part: &Part) -> Vec<String> {
    let (Some(found), Some(table)) = (&part.found, &part.table) else { return Vec::new() };
    let told = taken_from(found, table, &part.new).into_iter();
    told.map(|(rule, text)| format!("{}: rule `{rule}`: {text}", part.target)).collect()
}

/// Changes that are logged one by one.
const LOGGED: usize = 1000;

/// Logs what was done, rule by rule, and for whom.
fn tell(applied: &Applied, caller: Caller) {
    for Change { target, cookie, rule, before, after } in applied.changes.iter().take(LOGGED) {
        let (change, says) = match (before, after) {
            (Some(before), Some(after)) => ("changed", control::differences(before, after)),
            (None, Some(after)) => ("added", control::values(after)),
            (Some(before), None) => ("removed", control::values(before)),
            (None, None) => continue,
        };
        tracing::info!(%target, cookie, %rule, change, says, by = %caller, "apply");
    }
    tracing::info!(changes = applied.changes.len(), unchanged = applied.unchanged, by = %caller, "apply");
}

/// What rules of the file wait for.
fn waiting(looked: &[Led], request: &Request) -> Vec<Refusal> {
    let waits = looked.iter().filter_map(|led| match led {
        Led::Waits(waits) if request.discovered(waits.entry).is_none() => Some(waits),
        _ => None,
    });
    let refusal = |waits: &Waits| refusal(waits.entry, None, Error::new(Code::Failed, waits.why.clone()));
    waits.map(refusal).collect()
}

/// Compares everything with what there is now.
fn planned(
    world: &World,
    turn: &Turn,
    request: &Request,
    places: Located,
    known: HashMap<At, Whereabouts>,
) -> Result<ApplyPlan, Unplanned> {
    let steered = world.steered.all();
    let standing: BTreeMap<NetnsCookie, Standing> =
        steered.iter().map(|netns| (netns.cookie, Standing::from(netns))).collect();
    // Nobody waits for what is asked of the kernel meanwhile. What it is about is nobody else's.
    let intent = world.intent().clone();
    let now = Now {
        standing: &standing,
        intent: &intent,
        tells: Tells::from(&*world.maker.kernel),
        holds: &|subject| turn.holds(subject),
    };
    plan(now, request, places, known)
}

/// What a request is about: the namespaces that it names, and what is there for a file, or, where that goes, for anybody.
fn about(store: &Store, places: &Located, request: &Request) -> BTreeSet<Subject> {
    let goes = |origin| request.goes(origin);
    let mut about: BTreeSet<_> = store.places(goes).into_iter().map(Subject::Netns).collect();
    let looked_at = places.there.iter().chain(&places.aside).map(|there| there.found.cookie);
    about.extend(looked_at.map(Subject::Netns));
    about.insert(Subject::Files);
    let followed = store.following().filter(|(_, one)| goes(one.origin)).map(|(target, _)| target);
    let named: Vec<&Target> = request.namespaces.iter().map(|spec| &spec.target).collect();
    let named = named.into_iter().filter(|target| target.can_be_followed());
    about.extend(with_places(store, followed.chain(named)));
    about
}

fn refuse_part(part: &Part, error: &CompileError) -> Refused {
    Refused::CompileAll { target: part.target.clone(), why: error.to_string() }
}

/// What cannot be compiled, as problems of the request; what is left of a namespace that the file does not mean has no place
/// there.
fn uncompiled(uncompiled: Uncompiled) -> Error {
    let mut refused = Vec::new();
    for (blamed, error) in uncompiled {
        match blamed {
            Some(entry) => refused.push(refusal(entry, None, error)),
            None => return error,
        }
    }
    let failed = || Error::new(Code::Failed, "the rules cannot be compiled");
    refuse_if_any(refused).err().unwrap_or_else(failed)
}

/// Why a plan was not done, as problems of what is to blame.
fn blame(Undone { error, blamed }: Undone) -> Error {
    let problems = blamed.into_iter().map(|(entry, error)| refusal(entry, None, error)).collect();
    Error { problems, ..error }
}

/// Warnings that are told of one file.
const WARNINGS: usize = 20;

fn as_many_as_are_read(warnings: &mut Vec<String>) {
    if let Some(more) = warnings.len().checked_sub(WARNINGS).filter(|more| *more > 0) {
        warnings.truncate(WARNINGS);
        warnings.push(format!("and {more} more like these"));
    }
}

/// What becomes of each thing that is looked for.
fn discover_changes(before: &[DiscoverSpec], after: &[DiscoverSpec]) -> Vec<DiscoverChange> {
    let gone = before.iter().filter(|one| !after.contains(one));
    let gone = gone.map(|one| DiscoverChange { before: Some(one.clone()), after: None });
    let new = after.iter().filter(|one| !before.contains(one));
    let new = new.map(|one| DiscoverChange { before: None, after: Some(one.clone()) });
    gone.chain(new).collect()
}

/// Whether each discover can be meant; the rules without a name get one.
fn check_discover(of_sets: &mut [(SetName, DiscoverSpec)]) -> Result<(), Error> {
    let mut specs: Vec<_> = of_sets.iter().map(|(_, spec)| spec.clone()).collect();
    let twice = name_found_rules(&mut specs).into_iter().map(|(.., why)| why);
    let flaws = specs.iter().flat_map(DiscoverSpec::flaws);
    // A file has had its own told, each with its place.
    let wrong = twice.chain(flaws).next();
    match wrong {
        None => {
            of_sets.iter_mut().zip(specs).for_each(|((_, before), spec)| *before = spec);
            Ok(())
        }
        Some(why) => Err(Error::new(Code::Usage, why)),
    }
}

/// That another set before has a rule, where it is one.
fn first_set(
    namespaces: &[NamespaceSpec],
    sets: &[SetName],
    (namespace, rule): (usize, usize),
) -> Option<String> {
    let target = &namespaces[namespace].target;
    let name = namespaces[namespace].rules[rule].name.clone()?;
    let has = |spec: &NamespaceSpec| {
        spec.target == *target && spec.rules.iter().any(|rule| rule.name.as_ref() == Some(&name))
    };
    let first = namespaces.iter().position(has)?;
    let (set, own) = (sets.get(first)?, sets.get(namespace)?);
    let refused = || Refused::OfSet { target: target.clone(), rule: name.clone(), set: set.clone() };
    (set != own).then(|| refused().to_string())
}

/// Whether each entry can be meant; the rules without a name get one.
fn check(namespaces: &mut [NamespaceSpec], sets: &[SetName]) -> Result<(), Error> {
    let mut refused = Vec::new();
    for (namespace, spec) in namespaces.iter().enumerate() {
        for (rule, message) in spec.flaws() {
            refused.push(Refusal { namespace, rule, message, hint: None, is_flaw: true });
        }
    }
    for (namespace, rule, message) in name_rules(namespaces) {
        let message = first_set(namespaces, sets, (namespace, rule)).unwrap_or(message);
        refused.push(Refusal { namespace, rule: Some(rule), message, hint: None, is_flaw: true });
    }
    refuse_if_any(refused).map_err(|error| Error { code: Code::Usage, ..error })
}
