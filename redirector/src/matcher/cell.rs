//! Rules, taken apart.

use ipnet::IpNet;
use redirector_ebpf::{Action, Decision, FAMILY_IPV4, FAMILY_IPV6, Precedence};

use super::{Placed, ports, prefixes::Prefix};
use crate::config::{Destination, Match, OnUnavailable};

/// One match of a rule with one of its sources, in one family.
#[derive(Debug)]
pub(super) struct Cell {
    /// Its place in the order. Of one match in both families it is the same.
    pub(super) rank: u32,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub(super) family: u32,
    /// [`Prefix::ALL`] without an address.
    pub(super) destination: Prefix,
    /// [`Prefix::ALL`] without a source.
    pub(super) source: Prefix,
    /// Ascending ranges, both ends included.
    pub(super) ports: Vec<(u16, u16)>,
    /// What is not taken, although it is inside: destinations with their ports, longer than `destination`.
    pub(super) exceptions: Vec<(Prefix, Vec<(u16, u16)>)>,
    /// [`Decision::rule`].
    pub(super) rule: u32,
    /// [`Decision::packed`].
    pub(super) packed: u32,
}

fn is_in(family: u32, prefix: Option<IpNet>) -> bool {
    match prefix {
        None => true,
        Some(IpNet::V4(_)) => family == FAMILY_IPV4,
        Some(IpNet::V6(_)) => family == FAMILY_IPV6,
    }
}

fn prefix(prefix: Option<IpNet>) -> Prefix {
    prefix.map_or(Prefix::ALL, Prefix::from)
}

/// All of them, in the order in which they decide.
pub(super) fn cells<'a>(rules: impl IntoIterator<Item = Placed<'a>>) -> Vec<Cell> {
    let mut cells: Vec<(Precedence<'a>, [Option<Cell>; 2])> = Vec::new();
    for placed in rules {
        let rule = placed.rule;
        let named: Vec<_> = rule.from.iter().map(|source| Some(source.0)).collect();
        let sources = if named.is_empty() { &[None][..] } else { &named };
        for (matching, source) in
            rule.matches.iter().flat_map(|one| sources.iter().map(move |from| (one, *from)))
        {
            let precedence = Precedence {
                priority: rule.priority,
                destination_prefix_length: prefix(matching.prefix).length,
                ports: matching.ports.len(),
                source_prefix_length: prefix(source).length,
                rule_name: rule.name.as_str().as_bytes(),
            };
            let of = |family| cell(placed, family, matching, source);
            cells.push((precedence, [of(FAMILY_IPV4), of(FAMILY_IPV6)]));
        }
    }
    // Stable: cells that the order holds equal are of one rule, where either gives the same.
    cells.sort_by_key(|(precedence, _)| *precedence);
    let ranked = cells
        .into_iter()
        .zip(0..)
        .flat_map(|((_, both), rank)| both.into_iter().flatten().map(move |cell| Cell { rank, ..cell }));
    ranked.collect()
}

fn cell(placed: Placed<'_>, family: u32, matching: &Match, source: Option<IpNet>) -> Option<Cell> {
    let Placed { rule, index, consumer, flags } = placed;
    if !is_in(family, matching.prefix) || !is_in(family, source) {
        return None;
    }
    let destination = prefix(matching.prefix);
    let mut ports = matching.ports.ranges().to_vec();
    let mut exceptions = Vec::new();
    for except in rule.except.iter().filter(|except| is_in(family, except.prefix)) {
        let outside = prefix(except.prefix);
        if outside.contains(destination) {
            ports = ports::without(&ports, except.ports.ranges());
        } else if destination.contains(outside) {
            exceptions.push((outside, except.ports.ranges().to_vec()));
        }
    }
    if ports.is_empty() {
        return None;
    }
    let packed = decision(placed, consumer, flags).packed();
    Some(Cell {
        rank: 0,
        family,
        destination,
        source: prefix(source),
        ports,
        exceptions,
        rule: index,
        packed,
    })
}

fn decision(Placed { rule, index, .. }: Placed<'_>, consumer: u32, flags: u32) -> Decision {
    let action = match rule.to {
        Destination::Pass => Action::Pass,
        Destination::Reject => Action::Reject,
        Destination::Drop => Action::Drop,
        Destination::Handoff
        | Destination::Original
        | Destination::Unix(_)
        | Destination::Host { .. }
        | Destination::Inside { .. } => Action::Steer,
    };
    let on_unavailable = match rule.on_unavailable {
        OnUnavailable::Pass => Action::Pass,
        OnUnavailable::Reject => Action::Reject,
        OnUnavailable::Drop => Action::Drop,
    };
    Decision { action: action as u32, consumer, rule: index, on_unavailable: on_unavailable as u32, flags }
}
