//! `attach`, and what a hand-off begins with: look, plan, make, publish. Whatever fails, the state before is the state after.

mod plan;
mod wait;
mod wanted;

use std::sync::Arc;

pub(super) use self::wanted::{For, Mode, NewRule, When};
use self::{
    plan::{Asked, AttachPlan, plan},
    wait::wait_for,
};
use super::{
    bystanders::taken_from,
    commit::commit,
    destinations::{Missing, whereabouts},
    judge::{Tells, can_tell_interfaces, foreign_programs, judge},
    leave::{leaving, refuse_rest, unwanted},
    part::{Consumer, Part, Plan, first},
    places::{may_be_meant, open_again, open_unless_steered},
    refused::Refused,
    standing::Standing,
    turn::turn_there,
    warnings::warnings,
    world::World,
};
use crate::{
    config::{RuleName, Target},
    control::{self, AttachRequest, AttachResult, Attached, Caller, Code, Error, SCHEMA},
    dial::Whereabouts,
    intent::HostNetns,
    kernel::attached_programs,
    listener::{self, Reaching, make_inside},
    locate::{OpenNetns, TargetError},
    matcher::CompileError,
    steer::{Found, RuleState, Steered, blocking, failed, find_out, mend_link},
};

/// A rule that was put into force.
pub(crate) struct PutRule {
    pub(crate) answer: Attached,
    /// Where; `None` after a dry run.
    pub(crate) netns: Option<Arc<Steered>>,
    /// Of a program: in force already, and to be given away.
    pub(crate) listeners: Reaching,
    pub(crate) state: Arc<RuleState>,
}

/// `POST /v1/attach`.
pub(crate) async fn attach(world: &World, caller: Caller, request: AttachRequest) -> Result<Attached, Error> {
    let AttachRequest { target, rule: spec, dry_run, host_netns, follow, wait } = request;
    spec.validate().map_err(|error| Error::new(Code::Usage, error.to_string()))?;
    let host_netns = if host_netns { HostNetns::Allowed } else { HostNetns::Refused };
    if (follow || wait) && !target.can_be_followed() {
        return Err(Refused::CannotBeFollowed(target).into());
    }
    if follow && let Some(why) = spec.cannot_follow() {
        return Err(Error { code: Code::Usage, ..Refused::CannotFollow(why).into() });
    }
    can_tell_interfaces(&spec, Tells::from(&*world.maker.kernel))?;
    // Before anybody's turn: whoever is asked may not answer.
    let missing = if wait { Missing::Later } else { Missing::Refused };
    let whereabouts = whereabouts(world, &spec, caller, missing).await?;
    // What the text does not show: a name that leads through a process.
    if follow
        && let Some(to) = spec.to.first()
        && means_process(&whereabouts)
    {
        return Err(Refused::CannotFollow(to.cannot_be_followed()).into());
    }
    let mode = if dry_run { Mode::Dry } else { Mode::Real };
    let whom = if follow { For::Target } else { For::Namespace };
    let opened = match open_unless_steered(world, &target, caller).await {
        Ok(opened) => opened,
        Err(error) => {
            let stops = matches!(error, TargetError::NotRunning { .. });
            if (wait && error.is_missing()) || (follow && stops) {
                return wait_for(world, &target, (&error).into(), (spec, host_netns), (whom, mode)).await;
            }
            let hint = match &error {
                TargetError::NotRunning { .. } => {
                    "start it; with `--follow` the rule waits until it runs".into()
                }
                error if error.is_missing() && target.can_be_followed() => {
                    let known = error.hint().map(|hint| format!("{hint}; or ")).unwrap_or_default();
                    format!("{known}with `--wait` the rule waits until it is there")
                }
                _ => return Err(error.into()),
            };
            return Err(Error::from(error).with_hint(hint));
        }
    };
    let wanted = NewRule { target, spec, host_netns, whom, mode, missing, by: caller };
    Ok(put(world, wanted, opened, whereabouts).await?.answer)
}

fn means_process(whereabouts: &Whereabouts) -> bool {
    whereabouts.elsewhere.as_ref().is_some_and(|one| one.is_found_by_process())
}

/// Puts a rule into force in a namespace that was opened; `None` for one that is steered and named by its cookie.
///
/// # Errors
///
/// Nothing has been changed.
pub(crate) async fn put(
    world: &World,
    wanted: NewRule,
    opened: Option<OpenNetns>,
    whereabouts: Whereabouts,
) -> Result<PutRule, Error> {
    let NewRule { target, spec, host_netns, whom, mode, missing, by } = wanted;
    let opened = match opened {
        Some(opened) => opened,
        None => open_again(world, &target)?,
    };
    may_be_meant(&target, &opened, host_netns)?;
    let mut found = find_out(opened, &target, Some(&spec)).await?;
    let followed = Some(&target).filter(|target| target.can_be_followed());
    let _turn = turn_there(world, found.cookie, followed).await;
    world.goes_on()?;
    if let Ok(programs) = attached_programs(std::os::fd::AsFd::as_fd(&found.fd)) {
        // Ours may have been replaced since they were looked at.
        found.programs = programs;
    }
    let steered = world.steered.get(found.cookie);
    if matches!(target, Target::Cookie(_)) && steered.is_none() {
        // It was let go of meanwhile.
        return Err(Refused::NotSteered(target).into());
    }
    let standing = steered.as_ref().map(Standing::from);
    let asked = Asked {
        target: &target,
        at: found.cookie,
        id: found.container.as_ref(),
        spec,
        whom: &whom,
        host_netns,
        means_process: means_process(&whereabouts),
    };
    let outcome = plan(standing.as_ref(), &world.intent(), asked)?;
    let AttachPlan { mut result, is_other, rule, before, index, consumer, edit, left } = outcome;
    if mode == Mode::Real && steered.as_ref().is_some_and(|netns| mend_link(netns)) && !is_other {
        // What is there was not in force.
        result = AttachResult::Changed;
    }
    let rules = standing.as_ref().map(|there| &there.rules[..]).unwrap_or_default();
    let mut warnings = warnings(rules, &rule, &found);
    warnings.extend(whereabouts.warning.clone());
    let foreign = foreign_programs(standing.as_ref().and_then(|there| there.program), &found.programs);
    // What is there stays there.
    let in_its_way = if is_other { &foreign[..] } else { &[] };
    let tells = Tells::from(&*world.maker.kernel);
    judge(&target, &rule, (&found, in_its_way, tells), (&whereabouts, missing))?;
    let mut answer = Attached {
        schema: SCHEMA,
        result,
        dry_run: mode == Mode::Dry,
        target: target.clone(),
        cookie: found.cookie.0,
        rule: rule.name.clone(),
        after: before.as_ref().map(|_| control::ChangeSide {
            rule: rule.to_spec(),
            follows: Some(target.clone()).filter(|_| whom == For::Target),
        }),
        before,
        warnings,
        foreign_programs: foreign.clone(),
        existing_connections: found.existing_connections,
    };
    let state = Arc::new(RuleState::new(rule, (index, consumer), whereabouts));
    state.set_interfaces(&found.survey.interfaces);
    let (cookie, found) = (found.cookie, Arc::new(found));
    if let Some(netns) = steered.as_ref().filter(|_| mode == Mode::Real) {
        // Also where nothing is to be changed: it lives as long as this name leads there.
        netns.watched.named_by(&found.named_by);
    }
    let mut parts = Vec::new();
    if is_other {
        let mut part = Part::of(target.clone(), cookie, standing.as_ref());
        part.rules.extend(rules.iter().filter(|one| one.index != index).cloned());
        part.add(Arc::clone(&state));
        part.foreign = Some(foreign.clone());
        part.found = Some(Arc::clone(&found));
        if result == AttachResult::Attached {
            part.reset.before.push(index);
        }
        parts.push(part);
    }
    // Where it was may live on, by another container that shares it.
    let left = left.map(|left| (left, answer.rule.clone()));
    let left = unwanted(&world.intent(), &edit, left);
    parts.extend(leaving(world, left));
    let name = answer.rule.clone();
    let refuse = move |part: &Part, error: &CompileError| match part.new[..] {
        [] => refuse_rest(part, error),
        _ => Refused::compile(&name, error),
    };
    let compiled = Plan { parts, edit }.compile(&world.maker.kernel, refuse).await;
    let mut plan = compiled.map_err(first)?;
    answer.warnings.extend(taken_from_bystanders(&plan, (&found, steered.as_deref()), &answer.rule));
    if mode == Mode::Dry {
        return Ok(PutRule { answer, netns: None, listeners: Vec::new(), state });
    }
    let listeners = own_listeners(&found, &target, whom).await?;
    if let (For::Program(_), Some(part)) = (whom, plan.parts.first_mut()) {
        let copies = copies(&listeners).map_err(|error| failed("attach", &target, &error))?;
        part.own = Some(Consumer { consumer, listeners: copies });
    }
    commit(world, "attach", plan).await.map_err(|undone| undone.error)?;
    if let Some(netns) = steered.filter(|_| !is_other) {
        let there = standing.as_ref().and_then(|there| there.get(&answer.rule));
        let there = there.and_then(|there| there.whereabouts.elsewhere.as_ref());
        if let (Some(there), Some(found)) = (there, &state.whereabouts.elsewhere) {
            there.adopt(found);
        }
        netns.set_foreign_programs(foreign);
    }
    let says = match (&answer.before, &answer.after) {
        (Some(before), Some(after)) => control::differences(before, after),
        _ => control::values(&control::ChangeSide { rule: state.rule.to_spec(), follows: None }),
    };
    tracing::info!(netns = %target, cookie = answer.cookie, rule = %answer.rule, result = ?answer.result, says, %by, "attach");
    Ok(PutRule { answer, netns: world.steered.get(cookie), listeners, state })
}

/// What the rule takes from others, as it will be or, where nothing becomes other, as it is.
fn taken_from_bystanders(
    plan: &Plan,
    (found, steered): (&Found, Option<&Steered>),
    rule: &RuleName,
) -> impl Iterator<Item = String> + use<> {
    let planned = plan.parts.iter().find(|part| part.cookie == found.cookie);
    let table = match planned.and_then(|part| part.table.clone()) {
        Some(table) => Some(table),
        None => steered.map(|netns| Arc::clone(&netns.published.load().current)),
    };
    let told = table.map(|table| {
        let rules: Vec<_> = table.get(rule).cloned().into_iter().collect();
        taken_from(found, &table, &rules)
    });
    told.unwrap_or_default().into_iter().map(|(_, text)| text)
}

/// The listeners that a program gets with the answer.
async fn own_listeners(found: &Arc<Found>, target: &Target, whom: For) -> Result<Reaching, Error> {
    let For::Program(When::AtOnce(listeners)) = whom else { return Ok(Vec::new()) };
    let (found, target) = (Arc::clone(found), target.clone());
    blocking(move || {
        let made = make_inside(&found.fd, found.cookie, || listener::bind_for(listeners));
        made.map_err(|source| failed("attach", &target, &source))
    })
    .await
}

/// For as long as they are put into their slots.
fn copies(listeners: &Reaching) -> std::io::Result<Reaching> {
    listeners.iter().map(|(reach, socket)| Ok((*reach, socket.try_clone()?))).collect()
}
