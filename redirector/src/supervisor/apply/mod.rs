//! `apply`: what files want comes into force whole, or not at all.
//!
//! 1. Everything that is named is opened and looked at, without the lock (`places`).
//! 2. What is new has its destinations looked up, without the lock.
//! 3. Under the lock all is compared with what is there (`plan`), made, and switched to (`commit`). What fails before the last
//!    switch is taken back.

mod aside;
mod clash;
mod commit;
mod part;
mod places;
mod plan;
mod request;
mod unnamed;
mod waiting;

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};

pub(super) use self::aside::{Aside, SetAside};
use self::{
    places::{Places, There, Waits, recycled},
    plan::Planner,
    request::Request,
};
use super::{Supervisor, attach::HostNetns, opening::Missing};
use crate::{
    config::{
        Container, Prune, Rule,
        file::{DiscoverSpec, NamespaceSpec, name_found_rules, name_rules},
    },
    control::{Applied, ApplyRequest, Caller, Code, DiscoverChange, Error, Refusal, SCHEMA},
    dial::Whereabouts,
    locate::ContainerId,
};

/// What is opened or looked up at once.
const AT_ONCE: usize = 16;

/// Which rule of which namespace of the request.
type At = (usize, usize);

/// A rule that shall be somewhere.
struct Wanted {
    at: At,
    rule: Rule,
    /// One, or more where several entries want the same in one namespace.
    follows: Vec<Follower>,
    host_netns: HostNetns,
}

/// A container that a rule follows.
struct Follower {
    container: Container,
    /// Which one that is now, where it is running.
    id: Option<ContainerId>,
    /// It was found by a label.
    discovered: bool,
}

/// Why there is no plan.
enum Unplanned {
    /// What was looked at has been changed meanwhile.
    Outdated(Error),
    /// It cannot be.
    Refused(Error),
}

impl From<Error> for Unplanned {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Wanted {
    /// What a destination that cannot be found makes of it: where containers come and go, so do destinations.
    fn missing(&self) -> Missing {
        if self.follows.is_empty() { Missing::Refused } else { Missing::Down }
    }
}

impl Supervisor {
    pub(super) async fn apply_rules(&self, caller: Caller, request: ApplyRequest) -> Result<Applied, Error> {
        let ApplyRequest { mut namespaces, mut discover, dry_run, prune, lenient } = request;
        let prune = if prune { Prune::Api } else { Prune::No };
        check(&mut namespaces)?;
        check_discover(&mut discover)?;
        let _turn = self.discovery.turn(&discover).await;
        let (found, deaf) = self.gather_all(&discover).await;
        let mut request = Request::new(namespaces, (prune, dry_run), (found, &deaf));
        if lenient {
            request = request.lenient();
        }
        let mut is_outdated = false;
        let mut applied = loop {
            match self.try_apply(caller, &request, &discover).await {
                Ok(applied) => break applied,
                // Somebody else has changed what was looked at. That does not happen forever.
                Err(Unplanned::Outdated(_)) if !is_outdated => is_outdated = true,
                Err(Unplanned::Outdated(error)) => return Err(error),
                Err(Unplanned::Refused(error)) => request.set_aside(error)?,
            }
        };
        let of_found = request.warnings(&deaf);
        let deaf = deaf.values();
        let deaf = deaf.map(|why| format!("{why}; its containers are looked for as soon as it answers"));
        let mut warnings: Vec<_> = deaf.chain(of_found).chain(applied.warnings).collect();
        as_many_as_are_read(&mut warnings);
        applied.warnings = warnings;
        Ok(applied)
    }

    async fn try_apply(
        &self,
        caller: Caller,
        request: &Request,
        discover: &[DiscoverSpec],
    ) -> Result<Applied, Unplanned> {
        // What is wrong is collected, so that all of it is told.
        let (places, mut refused) = self.look_at_all(caller, request).await;
        let left_out = places.left_out(request);
        let unknown = {
            let table = self.table.lock().await;
            let planner = Planner::new(self, &table, request);
            places.there.iter().flat_map(|there| planner.unknown(there)).collect()
        };
        let whereabouts = self.whereabouts_of((caller, request), unknown, &mut refused).await;
        let mut table = self.table.lock().await;
        if self.is_ending() {
            return Err(Error::new(Code::Failed, "the daemon is stopping").into());
        }
        if request.is_outdated(&self.set_aside) {
            return Err(Unplanned::Outdated(Error::new(Code::Failed, "another file was applied meanwhile")));
        }
        let planner = Planner::new(self, &table, request);
        let plan = planner.plan(places, whereabouts, refused)?.compile(&self.kernel).await?;
        let applied = Applied {
            schema: SCHEMA,
            dry_run: request.dry_run,
            changes: plan.changes.clone(),
            discover: discover_changes(&self.discovery.specs(), discover),
            unchanged: plan.unchanged,
            warnings: plan.warnings.clone(),
            set_aside: left_out.iter().map(|(entry, aside)| request.why_aside(*entry, aside)).collect(),
        };
        if !request.dry_run {
            self.commit(&mut table, plan).await?;
            self.set_aside.replace(left_out.into_values().collect());
            if request.is_again() {
                return Ok(applied);
            }
            self.discovery.replace(discover.to_vec(), request.own.clone(), request.found.clone());
            // Whoever listens to an engine may have to begin, or may stop.
            self.follows.look_at([]);
            tracing::info!(changes = applied.changes.len(), unchanged = applied.unchanged, "apply");
        }
        Ok(applied)
    }

    /// Looks up where destinations are.
    async fn whereabouts_of(
        &self,
        (caller, request): (Caller, &Request),
        rules: Vec<Wanted>,
        refused: &mut Vec<Refusal>,
    ) -> HashMap<At, Whereabouts> {
        let looked_up = stream::iter(rules).map(|wanted| async move {
            let found = self.whereabouts(&wanted.rule, caller, wanted.missing()).await;
            let found = found.and_then(|found| {
                // Nobody says which process is meant by now.
                let is_of_process = found.elsewhere.as_ref().is_some_and(|one| one.is_found_by_process());
                let recycled = || recycled(&format!("destination `{}`", wanted.rule.to));
                if request.is_again() && is_of_process { Err(recycled()) } else { Ok(found) }
            });
            (wanted.at, found)
        });
        let mut known = HashMap::new();
        let mut looked_up = looked_up.buffered(AT_ONCE);
        while let Some((at, found)) = looked_up.next().await {
            match found {
                Ok(found) => drop(known.insert(at, found)),
                Err(error) => refused.push(refusal(at.0, Some(at.1), error)),
            }
        }
        known
    }
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
fn check_discover(specs: &mut [DiscoverSpec]) -> Result<(), Error> {
    let twice = name_found_rules(specs).into_iter().map(|(.., why)| why);
    let flaws = specs.iter().flat_map(DiscoverSpec::flaws);
    // A file has had its own told, each with its place.
    match twice.chain(flaws).next() {
        None => Ok(()),
        Some(why) => Err(Error::new(Code::Usage, why)),
    }
}

/// Whether each entry can be meant; the rules without a name get one.
fn check(namespaces: &mut [NamespaceSpec]) -> Result<(), Error> {
    let mut refused = Vec::new();
    for (namespace, spec) in namespaces.iter().enumerate() {
        for (rule, message) in spec.flaws() {
            refused.push(Refusal { namespace, rule, message, hint: None, is_flaw: true });
        }
    }
    for (namespace, rule, message) in name_rules(namespaces) {
        refused.push(Refusal { namespace, rule: Some(rule), message, hint: None, is_flaw: true });
    }
    refuse_if_any(refused).map_err(|error| Error { code: Code::Usage, ..error })
}

fn refusal(namespace: usize, rule: Option<usize>, error: Error) -> Refusal {
    Refusal { namespace, rule, message: error.message, hint: error.hint, is_flaw: false }
}

/// What is wrong with the file, whatever the namespace is like.
fn flaw(namespace: usize, rule: Option<usize>, error: Error) -> Refusal {
    Refusal { is_flaw: true, ..refusal(namespace, rule, error) }
}

/// The error that says all of them, in the order of the file.
fn refuse_if_any(mut problems: Vec<Refusal>) -> Result<(), Error> {
    problems.sort_by_key(|problem| (problem.namespace, problem.rule));
    let Some(first) = problems.first() else { return Ok(()) };
    let message = match problems.len() {
        1 => first.message.clone(),
        count => format!("{}, and {} more problems", first.message, count - 1),
    };
    let hint = first.hint.clone();
    Err(Error { hint, problems, ..Error::new(Code::Failed, message) })
}
