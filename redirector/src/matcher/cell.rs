//! Rules, taken apart.

use std::rc::Rc;

use ipnet::IpNet;
use redirector_ebpf::{
    Action, CONSUMER_BLACK_HOLE, Decision, FAMILY_IPV4, FAMILY_IPV6, PROTOCOL_TCP, PROTOCOL_UDP,
};

use super::{CompileError, Placed, order::Precedence, ports::Ranges, prefixes::Prefix};
use crate::config::{Destination, Match, OnUnavailable, without};

/// By which interfaces comes what a cell takes.
#[derive(Clone, Debug)]
pub(super) enum Ingress {
    /// By any.
    Any,
    /// By the one with this index.
    By(u32),
    /// By any but those with these indices.
    AllBut(Rc<[u32]>),
}

impl Ingress {
    /// Whether the cell is for what comes by this interface; `None` is one that no rule names.
    pub(super) fn includes(&self, interface: Option<u32>) -> bool {
        match (self, interface) {
            (Self::Any, _) | (Self::AllBut(_), None) => true,
            (Self::By(_), None) => false,
            (Self::By(its), Some(interface)) => *its == interface,
            (Self::AllBut(others), Some(interface)) => !others.contains(&interface),
        }
    }

    /// The interfaces that it names.
    pub(super) fn named(&self) -> &[u32] {
        match self {
            Self::Any => &[],
            Self::By(its) => std::slice::from_ref(its),
            Self::AllBut(others) => others,
        }
    }

    /// The only one.
    pub(super) fn only(&self) -> Option<u32> {
        match self {
            Self::By(its) => Some(*its),
            Self::Any | Self::AllBut(_) => None,
        }
    }
}

/// One match of a rule with one of its sources and one of its interfaces, in one protocol and family.
#[derive(Debug)]
pub(super) struct Cell {
    /// Its place in the order. Of one match in both protocols or families it is the same.
    pub(super) rank: u32,
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub(super) protocol: u32,
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub(super) family: u32,
    /// [`Prefix::ALL`] without an address.
    pub(super) destination: Prefix,
    /// [`Prefix::ALL`] without a source.
    pub(super) source: Prefix,
    /// By which interfaces it comes.
    pub(super) ingress: Ingress,
    /// Its ports.
    pub(super) ports: Ranges,
    /// What is not taken, although it is inside: destinations with their ports, longer than `destination`.
    pub(super) exceptions: Rc<[(Prefix, Ranges)]>,
    /// [`Decision::rule`].
    pub(super) rule: u32,
    /// [`Decision::packed`].
    pub(super) packed: u32,
}

/// Protocols and families, each with each: each has a table.
pub(super) const KINDS: [(u32, u32); 4] = [
    (PROTOCOL_TCP, FAMILY_IPV4),
    (PROTOCOL_TCP, FAMILY_IPV6),
    (PROTOCOL_UDP, FAMILY_IPV4),
    (PROTOCOL_UDP, FAMILY_IPV6),
];

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

/// Cells that one namespace can have: a bound for what compiling takes.
const MAX_CELLS: usize = 1 << 16;

/// All of them, in the order in which they decide.
pub(super) fn cells(rules: &[Placed<'_>]) -> Result<Vec<Cell>, CompileError> {
    let count = |placed: &Placed<'_>| {
        placed.rule.matches.len() * placed.rule.from.len().max(1) * placed.interfaces.len().max(1)
    };
    if rules.iter().map(count).sum::<usize>() > MAX_CELLS {
        return Err(CompileError::TooMuchWork);
    }
    let mut cells: Vec<(Precedence<'_>, Cell)> = Vec::new();
    for placed in rules {
        let rule = placed.rule;
        let named: Vec<_> = rule.from.iter().copied().map(Some).collect();
        let sources = if named.is_empty() { &[None][..] } else { &named };
        let ingresses: Vec<_> = if rule.interfaces.is_empty() {
            vec![Ingress::Any]
        } else if rule.excludes_interfaces() {
            vec![Ingress::AllBut(placed.interfaces.into())]
        } else {
            placed.interfaces.iter().copied().map(Ingress::By).collect()
        };
        let exceptions = rule.except.iter().map(|except| (except, Ranges::from(except.ports.ranges())));
        let exceptions: Vec<_> = exceptions.collect();
        for matching in &rule.matches {
            let of_match = KINDS.into_iter().filter(|(protocol, family)| {
                matching.protocol.includes(*protocol) && is_in(*family, matching.prefix)
            });
            for (protocol, family) in of_match {
                let (ports, inside) = taken(matching, protocol, family, &exceptions);
                if ports.is_empty() {
                    continue;
                }
                let sources = sources.iter().filter(|source| is_in(family, source.map(|source| source.0)));
                for (source, ingress) in
                    sources.flat_map(|source| ingresses.iter().map(move |one| (source, one)))
                {
                    let precedence = Precedence::of(rule, matching, *source);
                    let cell = Cell {
                        rank: 0,
                        protocol,
                        family,
                        destination: prefix(matching.prefix),
                        source: prefix(source.map(|source| source.0)),
                        ingress: ingress.clone(),
                        ports: Rc::clone(&ports),
                        exceptions: Rc::clone(&inside),
                        rule: placed.index,
                        packed: decision(*placed).packed(),
                    };
                    cells.push((precedence, cell));
                }
            }
        }
    }
    // Stable: cells that the order holds equal are of one rule, where either gives the same.
    cells.sort_by_key(|(precedence, _)| *precedence);
    // Where the order holds them equal, they have the same place: of both families and protocols what they lead to is then
    // the same.
    let mut ranked: Vec<Cell> = Vec::with_capacity(cells.len());
    let mut before = None;
    for (precedence, cell) in cells {
        let last = ranked.last().map(|last| last.rank);
        let rank = match last {
            None => 0,
            Some(last) if before == Some(precedence) => last,
            Some(last) => last + 1,
        };
        before = Some(precedence);
        ranked.push(Cell { rank, ..cell });
    }
    Ok(ranked)
}

/// The ports of a match without those that are excepted wherever it matches, and what is excepted inside.
fn taken(
    matching: &Match,
    protocol: u32,
    family: u32,
    exceptions: &[(&Match, Ranges)],
) -> (Ranges, Rc<[(Prefix, Ranges)]>) {
    let destination = prefix(matching.prefix);
    let mut ports = matching.ports.ranges().to_vec();
    let mut inside = Vec::new();
    let applies = |except: &Match| except.protocol.includes(protocol) && is_in(family, except.prefix);
    for (except, others) in exceptions.iter().filter(|(except, _)| applies(except)) {
        let outside = prefix(except.prefix);
        if outside.contains(destination) {
            ports = without(&ports, others);
        } else if destination.contains(outside) {
            inside.push((outside, Rc::clone(others)));
        }
    }
    (ports.into(), inside.into())
}

fn decision(Placed { rule, index, consumer, flags, interfaces: _ }: Placed<'_>) -> Decision {
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
    let decision = Decision {
        action: action as u32,
        consumer,
        rule: index,
        on_unavailable: on_unavailable as u32,
        flags,
    };
    if action == Action::Drop {
        // The next best where there is no black hole: it gets in nowhere.
        Decision {
            consumer: CONSUMER_BLACK_HOLE,
            on_unavailable: Action::Reject as u32,
            flags: 0,
            ..decision
        }
    } else {
        decision
    }
}
