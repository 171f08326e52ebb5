//! What of a rule may surprise the user.

use std::sync::Arc;

use redirector_ebpf::PROTOCOL_UDP;

use crate::{
    config::{Destination, Match, Rule},
    steer::{Found, RuleState},
};

/// Whether both name the same thing, or neither anything.
fn have_one_in_common<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.iter().any(|named| other.contains(named)) || (one.is_empty() && other.is_empty())
}

/// What may surprise the user.
pub(crate) fn warnings(current: &[Arc<RuleState>], rule: &Rule, found: &Found) -> Vec<String> {
    let mut warnings = Vec::new();
    for matching in &rule.matches {
        if let Some(prefix) = &matching.prefix
            && !found.survey.is_local(prefix)
        {
            warnings.push(format!(
                "match `{matching}`: no address of `{prefix}` is local there; only traffic that is delivered locally is steered"
            ));
        }
    }
    let (low, high) = found.survey.local_ports;
    let of_clients = |(first, last): &(u16, u16)| *first <= high && low <= *last;
    let takes_answers =
        |one: &&Match| one.protocol.includes(PROTOCOL_UDP) && one.ports.ranges().iter().any(of_clients);
    if let Some(matching) = rule.matches.iter().find(takes_answers)
        && rule.to != Destination::Pass
    {
        warnings.push(format!(
            "match `{matching}`: UDP ports {low}-{high} are those of clients there; answers to them are taken as well, those of name servers for example"
        ));
    }
    if found.survey.somaxconn < 128 {
        warnings.push(format!(
            "net.core.somaxconn is {} there: that few connections wait at once to be accepted, more must retry",
            found.survey.somaxconn
        ));
    }
    let twin = current.iter().find(|state| {
        state.rule.name != rule.name
            && have_one_in_common(&state.rule.from, &rule.from)
            && have_one_in_common(&state.rule.interfaces, &rule.interfaces)
            && state.rule.priority == rule.priority
            && state.rule.matches.iter().any(|one| rule.matches.contains(one))
    });
    if let Some(state) = twin {
        let (first, second) = if state.rule.name < rule.name {
            (&state.rule.name, &rule.name)
        } else {
            (&rule.name, &state.rule.name)
        };
        warnings.push(format!(
            "rules `{first}` and `{second}` have a match in common, which `{first}` takes; to change a rule name it by `--name`"
        ));
    }
    warnings
}
