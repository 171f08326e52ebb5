//! `explain`: where one packet would go, and why. Asks the namespace's routing, then the kernel program; the rest is description.

mod decide;
mod describe;
mod shadowed;

use std::{
    collections::BTreeMap,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

pub(crate) use self::shadowed::shadows;
use self::{
    decide::{Decided, decide},
    describe::{could, delivery, ingress, netfilter, socket, taken_from, verdict},
};
use super::{health::health, list::lease, state};
use crate::{
    config::{Destination, FlowSpec, Origin, RuleName, Target, Transport},
    control::{
        Caller, CellView, Code, Error, ExplainRequest, ExplainedRule, Explanation, ForeignView, MOST_REASONS,
        NamespaceState, OnUnavailableView, Runs, SCHEMA, Verdict,
    },
    kernel::{self, Outcome},
    lease::Lease,
    matcher::{self, NamedCell},
    netns::{self, Arrival, ArrivalError, Bystander, Delivery, Netfilter},
    reconcile::{World, seek},
    steer::{RuleState, Steered, blocking, failed},
    sys::SyscallError,
};

/// `POST /v1/explain`.
pub(crate) async fn explanation(
    world: &Arc<World>,
    caller: Caller,
    request: ExplainRequest,
) -> Result<Explanation, Error> {
    let ExplainRequest { target, flow, all_reasons } = request;
    let sought = seek(world, &target, caller).await;
    let netns = sought.find(world)?;
    // Held over it all: what the kernel is asked and what is told of it are of one rule set.
    let turn = world.turns.of(netns.cookie).await;
    let most = if all_reasons { usize::MAX } else { MOST_REASONS };
    let (leases, world) = (world.leases.of(&netns), Arc::clone(world));
    let explained = blocking(move || {
        let origin = |name: &RuleName| world.intent().origin(netns.cookie, name).unwrap_or(Origin::Api);
        explain(&netns, (&leases, &origin), (&target, flow), most)
    });
    let explained = explained.await;
    drop(turn);
    explained
}

/// Who has made a rule.
type OriginOf<'a> = &'a dyn Fn(&RuleName) -> Origin;

fn explain(
    netns: &Steered,
    (leases, origin): (&[Arc<Lease>], OriginOf<'_>),
    (target, flow): (&Target, FlowSpec),
    most: usize,
) -> Result<Explanation, Error> {
    let error = |source: &(dyn std::error::Error + 'static)| failed("explain", target, source);
    let fd = netns.open().map_err(|source| error(&source))?;
    let (arrival, inside) = arrive(&fd, target, &flow)?;
    let link = netns.instance.link_info().transpose().map_err(|source| error(&source))?;
    let mut explanation = Explanation {
        schema: SCHEMA,
        target: netns.target.clone(),
        cookie: netns.cookie.0,
        state: state::of_namespace(link.as_ref()),
        ingress: ingress(&arrival),
        fib: delivery(&flow, &arrival),
        verdict: Verdict::Unreached,
        peer_sees: Verdict::Unreached.peer_sees(&flow, None).into(),
        decided_by: None,
        rule: None,
        bypassed: false,
        own_listener: false,
        socket: None,
        reasons: Vec::new(),
        reasons_left_out: 0,
        foreign_programs: Vec::new(),
        netfilter: Some(netfilter(inside.netfilter)),
        bystanders: Vec::new(),
        segments_dropped: inside.segments_dropped,
        flow,
    };
    if arrival.delivery != Delivery::Local {
        return Ok(explanation);
    }
    let flow = &explanation.flow;
    let rules = Arc::clone(&netns.published.load().current);
    let Decided { heard, by } = decide(netns, &rules, flow, arrival.index.0)?;
    let placed = rules.placed();
    let account = matcher::account(&placed, (flow, arrival.index.0), heard.rule).map_err(|source| {
        let why = format!("flow `{flow}`: {source}");
        Error::new(Code::Failed, why)
            .with_hint("this is a mistake of redirector: please report it, with the rules")
    })?;
    let verdict = verdict(&heard);
    let state = heard.rule.and_then(|index| rules.by_index(index));
    explanation.verdict = verdict;
    explanation.peer_sees = verdict.peer_sees(flow, state.map(|state| &state.rule.to)).into();
    explanation.decided_by = Some(by);
    let by = state.zip(account.decides);
    let by = by.map(|(state, cell)| rule((netns, leases, state), origin, cell, (&arrival, &heard.outcome)));
    explanation.rule = by.transpose().map_err(|source| error(&source))?;
    explanation.bystanders = taken_from(&inside.bystanders, flow, verdict);
    explanation.bypassed = heard.outcome == Outcome::Bypassed;
    explanation.socket = socket(netns, leases, flow, &heard);
    explanation.reasons = account.before.iter().take(most).map(Into::into).collect();
    explanation.reasons_left_out = account.before.len().saturating_sub(most) as u64;
    let to = flow.destination;
    let may_be_relays =
        flow.protocol == Transport::Tcp && !matches!(verdict, Verdict::Reject | Verdict::Drop);
    explanation.own_listener = heard.own_listener
        || may_be_relays
            && netns.listeners().iter().any(|listener| listener.address().is_ok_and(|own| own == to));
    if explanation.own_listener {
        explanation.peer_sees = "RST: nobody is meant by redirector's own listener".into();
    }
    if explanation.state == NamespaceState::Detached {
        explanation.verdict = Verdict::Unmatched;
        explanation.peer_sees = Verdict::Unmatched.peer_sees(flow, None).into();
    }
    explanation.foreign_programs = foreign(netns, &fd, verdict).map_err(|source| error(&source))?;
    Ok(explanation)
}

/// What only the namespace itself tells, beside its routing. What of it cannot be asked is not there, and fails nothing.
struct Inside {
    netfilter: Netfilter,
    bystanders: Vec<Bystander>,
    segments_dropped: BTreeMap<String, u64>,
}

fn arrive(fd: &OwnedFd, target: &Target, flow: &FlowSpec) -> Result<(Arrival, Inside), Error> {
    let look = || {
        let (bystanders, dropped) = (netns::bystanders(), netns::segments_dropped());
        let not_told = |error: &std::io::Error| tracing::debug!(%target, %error, "look at a namespace");
        let inside = Inside {
            netfilter: netns::netfilter(),
            bystanders: bystanders.inspect_err(not_told).unwrap_or_default(),
            segments_dropped: dropped.inspect_err(not_told).unwrap_or_default(),
        };
        (netns::arrival(flow), inside)
    };
    let (arrived, inside) = netns::enter(fd, look).map_err(|source| failed("enter", target, &source))?;
    let arrived = arrived.map_err(|source| {
        let hint = match &source {
            ArrivalError::NoSuchInterface { there, .. } => {
                format!("there are: {}", there.join(", ")).escape_debug().to_string()
            }
            ArrivalError::NoWayBack { .. } => format!("name the interface: `{flow} dev NAME`"),
            ArrivalError::Netlink(_) => return failed("explain", target, &source),
        };
        let described = Error::chain(Code::Failed, &source);
        Error { message: format!("target `{target}`: {}", described.message), ..described }.with_hint(hint)
    });
    Ok((arrived?, inside))
}

fn rule(
    (netns, leases, state): (&Steered, &[Arc<Lease>], &RuleState),
    origin: OriginOf<'_>,
    cell: NamedCell<'_>,
    (arrival, outcome): (&Arrival, &Outcome),
) -> Result<ExplainedRule, SyscallError> {
    let reason = match outcome {
        Outcome::Unavailable(reason) => Some(*reason),
        _ => None,
    };
    let needs_socket = !matches!(state.rule.to, Destination::Pass | Destination::Reject) || reason.is_some();
    let on_unavailable = needs_socket.then(|| OnUnavailableView {
        action: state.on_unavailable(),
        decided: reason.is_some(),
        reason: reason.map(|reason| describe::reason_name(reason).to_owned()),
    });
    let leased = leases.iter().find(|lease| std::ptr::eq(&*lease.rule, state));
    let leased = leased.map(|leased| lease(netns, leased));
    let health = health(state, leased.as_ref());
    let steered = match health.accepted {
        Some(_) => Some(netns.instance.counters.rule(state.index)?.steered),
        None => None,
    };
    Ok(ExplainedRule {
        name: state.rule.name.clone(),
        origin: if state.is_lease() { Origin::Lease } else { origin(&state.rule.name) },
        to: vec![state.rule.to.clone()],
        state: state::of_rule(state),
        cell: CellView {
            matching: cell.matching.clone(),
            from: cell.source,
            interface: (!state.rule.interfaces.is_empty()).then(|| arrival.interface.clone()),
        },
        on_unavailable,
        health,
        steered,
    })
}

/// Programs of others, as they are attached now.
fn foreign(netns: &Steered, fd: &OwnedFd, verdict: Verdict) -> std::io::Result<Vec<ForeignView>> {
    let own = netns.instance.program_id().map_err(std::io::Error::other)?;
    let programs = kernel::attached_programs(fd.as_fd())?;
    let place = programs.iter().position(|one| one.id == own).unwrap_or(programs.len());
    let others = programs.into_iter().enumerate().filter(|(_, one)| one.id != own);
    Ok(others
        .map(|(number, one)| {
            let runs = if number < place { Runs::Before } else { Runs::After };
            ForeignView { id: one.id, name: one.name, runs, could: could(runs, verdict).into() }
        })
        .collect())
}
