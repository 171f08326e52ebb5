//! What is decided: by the kernel, or where it cannot be asked by the same rule here.

use std::os::fd::AsFd as _;

use redirector_ebpf::{Action, CONSUMER_BLACK_HOLE, Decision, FLAG_DOWN, Flow, Unavailable, slot_of};

use crate::{
    config::{FlowSpec, Transport},
    control::{Code, DecidedBy, Decider, Error},
    kernel::{AskError, Fate, Heard, Outcome, flow_of},
    listener,
    steer::{RuleTable, Steered},
    sys::SyscallError,
    text::chain,
};

/// A decision, and whose it is.
pub(crate) struct Decided {
    pub(crate) heard: Heard,
    pub(crate) by: DecidedBy,
}

/// Asks the kernel about a packet that comes by the interface with this index. Blocks.
pub(crate) fn decide(
    netns: &Steered,
    rules: &RuleTable,
    asked: &FlowSpec,
    ingress: u32,
) -> Result<Decided, Error> {
    let flow = flow_of(asked, if netns.instance.reads_ingress() { ingress } else { 0 });
    let decision = rules.rule_set.image.decide(&flow);
    let expected = decision.map(|decision| decision.rule);
    match netns.instance.ask(&flow, expected) {
        // The rules were not asked.
        Ok(heard) if heard.own_listener => Ok(Decided {
            heard: Heard { rule: expected, ..heard },
            by: DecidedBy { who: Decider::Kernel, why: None },
        }),
        Ok(heard) if heard.rule == expected => {
            Ok(Decided { heard, by: DecidedBy { who: Decider::Kernel, why: None } })
        }
        Ok(heard) => {
            let name = |index: Option<u32>| {
                let name = index.and_then(|index| rules.by_index(index)).map(|state| &state.rule.name);
                name.map_or_else(|| "no rule".to_owned(), |name| format!("rule `{name}`"))
            };
            let (kernel, here) = (name(heard.rule), name(expected));
            let message = format!("flow `{asked}`: the kernel decides by {kernel}, the daemon by {here}");
            let hint = "this is a mistake of redirector: please report it, with the rules";
            Err(Error::new(Code::Failed, message).with_hint(hint))
        }
        Err(error) => {
            let why = why(&error);
            let heard = by_rule_set(netns, decision, (asked, &flow))
                .map_err(|error| Error::chain(Code::Failed, &error))?;
            Ok(Decided { heard, by: DecidedBy { who: Decider::RuleSet, why: Some(why) } })
        }
    }
}

fn why(error: &AskError) -> String {
    if error.is_unsupported() {
        "this kernel has no test runs of such programs (Linux 5.13 and newer)".into()
    } else {
        format!("the kernel could not be asked: {}", chain(error))
    }
}

/// As the program goes on from a decision (`judge`, redirector-ebpf/src/main.rs), as far as that can be seen from here.
fn by_rule_set(
    netns: &Steered,
    decision: Option<Decision>,
    (asked, flow): (&FlowSpec, &Flow),
) -> Result<Heard, SyscallError> {
    if asked.protocol == Transport::Tcp && netns.instance.has_own_listener(asked.destination)? {
        let rule = decision.map(|decision| decision.rule);
        return Ok(Heard { rule, outcome: Outcome::Unmatched, fate: Fate::Refused, own_listener: true });
    }
    let Some(decision) = decision else {
        return Ok(Heard {
            rule: None,
            outcome: Outcome::Unmatched,
            fate: Fate::Lookup,
            own_listener: false,
        });
    };
    let heard = |outcome, fate| Ok(Heard { rule: Some(decision.rule), outcome, fate, own_listener: false });
    if decision.action == Action::Pass as u32 {
        return heard(Outcome::Passed, Fate::Lookup);
    }
    let may_be_own = asked.protocol == Transport::Tcp && asked.source.ip() == asked.destination.ip();
    if may_be_own && netns.instance.bypass.contains(asked.source, asked.destination.port())? {
        return heard(Outcome::Bypassed, Fate::Lookup);
    }
    if decision.action == Action::Reject as u32 {
        return heard(Outcome::Rejected, Fate::Refused);
    }
    let in_slot = |consumer| netns.instance.listener_cookie(slot_of(consumer, flow.kind()));
    let reason = if decision.flags & FLAG_DOWN != 0 {
        Unavailable::RuleDown
    } else {
        match in_slot(decision.consumer)? {
            None => Unavailable::EmptySlot,
            Some(cookie) if has_ended(netns, cookie) => Unavailable::NotListening,
            Some(cookie) => {
                let dropped = decision.action == Action::Drop as u32;
                let outcome = if dropped { Outcome::Dropped } else { Outcome::Steered };
                return heard(outcome, Fate::Socket(cookie));
            }
        }
    };
    let outcome = Outcome::Unavailable(reason);
    if decision.on_unavailable == Action::Pass as u32 {
        return heard(outcome, Fate::Lookup);
    }
    match in_slot(CONSUMER_BLACK_HOLE)? {
        Some(cookie) if decision.on_unavailable == Action::Drop as u32 => {
            heard(outcome, Fate::Socket(cookie))
        }
        _ => heard(outcome, Fate::Refused),
    }
}

/// Whether a socket is one of ours that was killed from inside.
fn has_ended(netns: &Steered, cookie: u64) -> bool {
    netns.listeners().iter().any(|listener| {
        let own = listener::cookies((*listener.get()).as_fd());
        own.is_ok_and(|(own, _)| own == cookie) && !listener.is_listening()
    })
}
