//! `apply`: what files want comes into force whole, or not at all.
//!
//! 1. Everything that is named is opened and looked at, without the lock (`places`).
//! 2. What is new has its destinations looked up, without the lock.
//! 3. Under the lock all is compared with what is there (`plan`), made, and switched to (`commit`). What fails before the last
//!    switch is taken back.

mod clash;
mod commit;
mod part;
mod places;
mod plan;
mod waiting;

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};

use self::{
    places::{Places, There, Waits},
    plan::Planner,
};
use super::{Supervisor, attach::HostNetns, opening::Missing, rules::Whereabouts};
use crate::{
    config::{
        Container, Prune, Rule, Target,
        file::{NamespaceSpec, name_rules},
    },
    control::{Applied, ApplyRequest, Caller, Code, Error, Refusal, SCHEMA},
    target::ContainerId,
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
        let ApplyRequest { mut namespaces, dry_run, prune } = request;
        let prune = if prune { Prune::Api } else { Prune::No };
        check(&mut namespaces)?;
        match self.try_apply(caller, &namespaces, (prune, dry_run)).await {
            // Somebody else has changed what was looked at. That does not happen forever.
            Err(Unplanned::Outdated(_)) => self.try_apply(caller, &namespaces, (prune, dry_run)).await,
            done => done,
        }
        .map_err(|(Unplanned::Outdated(error) | Unplanned::Refused(error))| error)
    }

    async fn try_apply(
        &self,
        caller: Caller,
        namespaces: &[NamespaceSpec],
        (prune, dry_run): (Prune, bool),
    ) -> Result<Applied, Unplanned> {
        // What is wrong is collected, so that all of it is told.
        let (places, mut refused) = self.look_at_all(caller, namespaces).await;
        let unknown = {
            let table = self.table.lock().await;
            let planner = Planner::new(self, &table, prune);
            places.there.iter().flat_map(|there| planner.unknown(there, namespaces)).collect()
        };
        let whereabouts = self.whereabouts_of(caller, unknown, &mut refused).await;
        let mut table = self.table.lock().await;
        if self.is_ending() {
            return Err(Error::new(Code::Failed, "the daemon is stopping").into());
        }
        let planner = Planner::new(self, &table, prune);
        let plan = planner.plan(places, namespaces, whereabouts, refused)?.compile(&self.kernel).await?;
        let applied = Applied {
            schema: SCHEMA,
            dry_run,
            changes: plan.changes.clone(),
            unchanged: plan.unchanged,
            warnings: as_many_as_are_read(plan.warnings.clone()),
        };
        if !dry_run {
            self.commit(&mut table, plan).await?;
            tracing::info!(changes = applied.changes.len(), unchanged = applied.unchanged, "apply");
        }
        Ok(applied)
    }

    /// Looks up where destinations are.
    async fn whereabouts_of(
        &self,
        caller: Caller,
        rules: Vec<Wanted>,
        refused: &mut Vec<Refusal>,
    ) -> HashMap<At, Whereabouts> {
        let looked_up = stream::iter(rules).map(|wanted| async move {
            let found = self.whereabouts(&wanted.rule, caller, wanted.missing()).await;
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

fn as_many_as_are_read(mut warnings: Vec<String>) -> Vec<String> {
    if let Some(more) = warnings.len().checked_sub(WARNINGS).filter(|more| *more > 0) {
        warnings.truncate(WARNINGS);
        warnings.push(format!("and {more} more like these"));
    }
    warnings
}

/// Whether each entry can be meant; the rules without a name get one.
fn check(namespaces: &mut [NamespaceSpec]) -> Result<(), Error> {
    let mut refused = Vec::new();
    for (namespace, spec) in namespaces.iter().enumerate() {
        for (rule, message) in spec.flaws() {
            refused.push(Refusal { namespace, rule, message, hint: None });
        }
    }
    for (namespace, rule, message) in name_rules(namespaces) {
        refused.push(Refusal { namespace, rule: Some(rule), message, hint: None });
    }
    refuse_if_any(refused).map_err(|error| Error { code: Code::Usage, ..error })
}

fn refusal(namespace: usize, rule: Option<usize>, error: Error) -> Refusal {
    Refusal { namespace, rule, message: error.message, hint: error.hint }
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

/// The rules that one entry wants, and the container that it leads to.
fn wanted_by(entry: usize, spec: &NamespaceSpec, id: Option<&ContainerId>) -> impl Iterator<Item = Wanted> {
    let container = match &spec.target {
        Target::Container(container) if spec.follows() => Some(container.clone()),
        _ => None,
    };
    let host_netns = if spec.host_netns { HostNetns::Allowed } else { HostNetns::Refused };
    let id = id.cloned();
    spec.rules().enumerate().map(move |(rule, spec)| {
        let follower = container.clone().map(|container| Follower { container, id: id.clone() });
        Wanted { at: (entry, rule), rule: spec, follows: follower.into_iter().collect(), host_netns }
    })
}
