//! `attach`: validate, make, publish. Whatever fails, the state before is the state after.

mod begin;
mod judge;
mod plan;
mod survey;

use std::{path::PathBuf, sync::Arc};

use redirector_ebpf::{PROTOCOL_TCP, slot};

pub(super) use self::{
    begin::Ready,
    judge::{foreign_programs, may_be_meant},
    survey::{Found, find_out, warnings},
};
use self::{
    begin::fill_consumer,
    plan::{Plan, plan, with},
};
use super::{
    Supervisor, Table, blocking, failed,
    follow::Follow,
    namespace::Namespace,
    opening::Missing,
    rules::{RuleState, RuleTable},
    sockets::make_sockets,
};
use crate::{
    config::{Origin, Rule, RuleSpec, Target},
    control::{AttachRequest, AttachResult, Attached, Caller, Code, Error, SCHEMA},
    dial::{Elsewhere, Whereabouts},
    listener::{self, Bound, make_inside},
    locate::{OpenNetns, TargetError},
    netns::{Family, NetnsCookie},
};

const CANNOT_FOLLOW_HINT: &str = "name its namespace, or its container";

/// A rule to be put into force.
pub(super) struct Wanted {
    pub(super) target: Target,
    pub(super) spec: RuleSpec,
    pub(super) host_netns: HostNetns,
    pub(super) how: How,
    pub(super) origin: Origin,
}

/// Whether the host's own namespace may be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostNetns {
    Refused,
    Allowed,
}

/// What is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Say what would be done.
    DryRun,
    /// A rule that stays until it is detached.
    Rule(Follow),
    /// A rule with listeners of its own, which the receiver gets.
    Lease(Delivery),
}

/// When the receiver of a lease gets its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// With the answer.
    AtOnce,
    /// When it listens.
    OnDemand,
}

impl How {
    fn is_lease(self) -> bool {
        matches!(self, Self::Lease(_))
    }
}

/// A rule that was put into force.
pub(super) struct Put {
    pub(super) answer: Attached,
    /// Where; `None` after a dry run.
    pub(super) netns: Option<Arc<Namespace>>,
    /// Of a lease: in force already, and to be given away.
    pub(super) listeners: Bound,
    pub(super) state: Arc<RuleState>,
}

impl Supervisor {
    pub(super) async fn attach_rule(
        &self,
        caller: Caller,
        request: AttachRequest,
    ) -> Result<Attached, Error> {
        let AttachRequest { target, rule: spec, dry_run, host_netns, follow } = request;
        spec.validate().map_err(|error| Error::new(Code::Usage, error.to_string()))?;
        let host_netns = if host_netns { HostNetns::Allowed } else { HostNetns::Refused };
        if follow && !matches!(target, Target::Container(_)) {
            let message = format!("target `{target}`: only a container can be followed");
            return Err(Error::new(Code::Usage, message));
        }
        if follow && let Some(why) = spec.cannot_follow() {
            return Err(Error::new(Code::Usage, why).with_hint(CANNOT_FOLLOW_HINT));
        }
        self.can_tell_interfaces(&spec)?;
        // Before the namespace is held: whoever is asked may not answer.
        let whereabouts = self.whereabouts(&spec, caller, Missing::Refused).await?;
        // What the text does not show: a name that leads through a process.
        let is_of_process = whereabouts.elsewhere.as_ref().is_some_and(|one| one.is_found_by_process());
        if follow && let Some(to) = spec.to.first().filter(|_| is_of_process) {
            return Err(Error::new(Code::Failed, to.cannot_be_followed()).with_hint(CANNOT_FOLLOW_HINT));
        }
        let opened = match self.open_unless_steered(&target, caller).await {
            Ok(opened) => opened,
            Err(error) => {
                let (Target::Container(container), TargetError::NotRunning { id, .. }) = (&target, &error)
                else {
                    return Err(error.into());
                };
                if !follow {
                    let hint = "start it; with `--follow` the rule waits until it runs";
                    return Err(Error::from(error).with_hint(hint));
                }
                let why = (id.clone(), error.to_string());
                return self.wait_for(container, why, (spec, host_netns), dry_run).await;
            }
        };
        let follow = if follow { Follow::Begin } else { Follow::Not };
        let how = if dry_run { How::DryRun } else { How::Rule(follow) };
        let wanted = Wanted { target, spec, host_netns, how, origin: Origin::Api };
        Ok(self.put_into(wanted, opened, whereabouts).await?.answer)
    }

    /// Opens what is wanted and puts a rule into force there.
    pub(super) async fn put(&self, caller: Caller, wanted: Wanted) -> Result<Put, Error> {
        let whereabouts = self.whereabouts(&wanted.spec, caller, Missing::Refused).await?;
        let opened = self.open_unless_steered(&wanted.target, caller).await?;
        self.put_into(wanted, opened, whereabouts).await
    }

    /// What a cookie means is known only to the table.
    pub(super) async fn open_unless_steered(
        &self,
        target: &Target,
        caller: Caller,
    ) -> Result<Option<OpenNetns>, TargetError> {
        match target {
            Target::Cookie(_) => Ok(None),
            _ => self.open(target.clone(), caller).await.map(Some),
        }
    }

    /// Puts a rule into force in a namespace that was opened; `None` for one that is steered and named by its cookie.
    pub(super) async fn put_into(
        &self,
        wanted: Wanted,
        opened: Option<OpenNetns>,
        whereabouts: Whereabouts,
    ) -> Result<Put, Error> {
        let Wanted { target, spec, host_netns, how, origin } = wanted;
        let missing = if how == How::Rule(Follow::Still) { Missing::Down } else { Missing::Refused };
        // One change at a time; the data path takes no part in this lock.
        let mut table = self.table.lock().await;
        if self.is_ending() {
            return Err(Error::new(Code::Failed, "the daemon is stopping"));
        }
        if let How::Rule(follow) = how {
            let container = opened.as_ref().and_then(|opened| opened.container.as_ref());
            self.may_be_put((&target, container), &spec, follow)?;
        }
        let opened = match opened {
            Some(opened) => opened,
            None => open_again(&table, &target)?,
        };
        may_be_meant(&target, &opened, host_netns)?;
        let found = find_out(opened, &target, Some(&spec)).await?;
        let existing = table.get(&found.cookie).cloned();
        if let How::Rule(follow) = how {
            self.may_change(existing.as_deref(), &target, &spec, follow)?;
        }
        let followed = spec.clone();
        let Plan { mut result, rule, index, consumer } = plan(existing.as_deref(), spec, how)?;
        if result == AttachResult::Unchanged && names_process(existing.as_deref(), &rule, &whereabouts) {
            result = AttachResult::Changed;
        }
        let mut warnings = warnings(existing.as_deref(), &rule, &found);
        warnings.extend(whereabouts.warning.clone());
        let foreign = foreign_programs(existing.as_deref(), &found);
        // What is there stays there.
        let in_its_way = if result == AttachResult::Unchanged { &[][..] } else { &foreign };
        self.judge(&target, &rule, (&found, in_its_way), (&whereabouts, missing))?;
        let mut answer = Attached {
            schema: SCHEMA,
            result,
            dry_run: how == How::DryRun,
            target: target.clone(),
            cookie: found.cookie.0,
            rule: rule.name.clone(),
            warnings,
            foreign_programs: foreign.clone(),
            existing_connections: found.existing_connections,
        };
        let state = Arc::new(RuleState::new(rule, origin, (index, consumer), whereabouts));
        state.set_interfaces(&found.survey.interfaces);
        let (before, changed, kernel) = (existing.clone(), Arc::clone(&state), Arc::clone(&self.kernel));
        let rules = blocking(move || with(before.as_deref(), changed, &kernel.rule_sets)).await?;
        if how == How::DryRun {
            return Ok(Put { answer, netns: existing, listeners: Vec::new(), state });
        }
        let container = found.container.clone();
        let (netns, listeners) = match existing {
            Some(netns) if result == AttachResult::Unchanged => {
                let current = Arc::clone(&netns.published.load().current);
                let there = current.get(&answer.rule).and_then(|there| there.whereabouts.elsewhere.as_ref());
                if let (Some(there), Some(found)) = (there, &state.whereabouts.elsewhere) {
                    there.adopt(found);
                }
                netns.set_foreign_programs(foreign);
                (netns, Vec::new())
            }
            existing => {
                let listeners = own_listeners(&found, &target, how).await?;
                let netns = match existing {
                    Some(netns) => {
                        let made = make_sockets(&netns, found.fd, rules.needs()).await;
                        made.inspect_err(|_| netns.settle_sockets())?;
                        let changed = change(&netns, rules, &state, &listeners, result).await;
                        changed.inspect_err(|_| netns.settle_sockets())?;
                        netns.set_foreign_programs(foreign);
                        netns
                    }
                    None => {
                        let netns =
                            self.begin(&target, found, rules, foreign, (consumer, &listeners)).await?;
                        table.insert(netns.cookie, Arc::clone(&netns));
                        netns
                    }
                };
                if state.is_down() {
                    netns.tell_down(&state);
                }
                (netns, listeners)
            }
        };
        // Whether a file's rule follows is for the file to say.
        let is_files = netns.published.load().current.get(&answer.rule).is_some_and(|state| state.is_files());
        if let How::Rule(follow) = how
            && (follow == Follow::Still || !is_files)
        {
            let name = answer.rule.clone();
            let rule = (name.clone(), RuleSpec { name: Some(name), ..followed }, (host_netns, origin));
            let changed = self.keep_following(&mut table, follow, (&target, container), &netns, rule).await;
            if changed && answer.result == AttachResult::Unchanged {
                answer.result = AttachResult::Changed;
            }
        }
        if how != How::Rule(Follow::Still) || answer.result != AttachResult::Unchanged {
            tracing::info!(netns = %target, cookie = answer.cookie, rule = %answer.rule, result = ?answer.result, "attach");
        }
        Ok(Put { answer, netns: Some(netns), listeners, state })
    }
}

/// Whether a rule that says the same as before means a process now, and did not. Other rules that name the same do not, so it
/// has no destination in common with them any more. What a file's rule means is for the file to say.
fn names_process(existing: Option<&Namespace>, rule: &Rule, whereabouts: &Whereabouts) -> bool {
    let is_process = |one: Option<&Arc<Elsewhere>>| one.is_some_and(|one| one.is_found_by_process());
    let there = existing.and_then(|netns| netns.published.load().current.get(&rule.name).cloned());
    let was_none =
        there.is_some_and(|there| !there.is_files() && !is_process(there.whereabouts.elsewhere.as_ref()));
    was_none && is_process(whereabouts.elsewhere.as_ref())
}

/// Opens a namespace that is steered.
pub(super) fn open_again(table: &Table, target: &Target) -> Result<OpenNetns, Error> {
    let known = match target {
        Target::Cookie(cookie) => table.get(&NetnsCookie(*cookie)),
        _ => None,
    };
    let known = known.ok_or_else(|| super::not_steered(target))?;
    let fd = known.open().map_err(|error| failed("open", target, &error))?;
    Ok(OpenNetns {
        fd,
        file: known.file,
        path: PathBuf::new(),
        processes: Arc::default(),
        host: known.host,
        container: known.container.clone(),
    })
}

/// The listeners that a receiver gets with the answer.
async fn own_listeners(found: &Found, target: &Target, how: How) -> Result<Bound, Error> {
    if how != How::Lease(Delivery::AtOnce) {
        return Ok(Vec::new());
    }
    let fd = found.fd.try_clone().map_err(|error| failed("attach", target, &error))?;
    let (cookie, target) = (found.cookie, target.clone());
    blocking(move || {
        let made = make_inside(&fd, cookie, listener::bind_pair);
        made.map_err(|source| failed("attach", &target, &source))
    })
    .await
}

/// Publishes other rules in a namespace that is steered already: `state` is new among them, or has changed.
async fn change(
    netns: &Arc<Namespace>,
    rules: RuleTable,
    state: &RuleState,
    listeners: &Bound,
    result: AttachResult,
) -> Result<(), Error> {
    let (consumer, index) = (state.consumer, state.index);
    if state.is_lease() {
        // Somebody may still hold listeners that had this consumer's number before.
        for family in [Family::Ipv4, Family::Ipv6] {
            netns.instance.clear_listener(slot(consumer, PROTOCOL_TCP, family.bit()));
        }
    }
    fill_consumer(&netns.instance, consumer, listeners, &netns.target)?;
    let netns = Arc::clone(netns);
    blocking(move || {
        let error = |source: &(dyn std::error::Error + 'static)| failed("attach", &netns.target, source);
        if result == AttachResult::Attached {
            netns.instance.counters.reset_rule(index).map_err(|source| error(&source))?;
        }
        netns.publish(&Arc::new(rules)).map_err(|source| error(&source))
    })
    .await
}
