//! Rules that can never decide, because others take all that they would.
//!
//! What a rule takes is cut into pieces that no other rule before it cuts further; of each piece one flow is decided by the
//! image, as any other. So there is no second opinion here of what matches: only the pieces are found.

use std::collections::{BTreeMap, BTreeSet};

use redirector_ebpf::Flow;

use super::{
    CompileError, Image, Placed,
    cell::{Cell, cells},
    prefixes::{Prefix, Prefixes, words_of},
};
use crate::config::Rule;

/// What keeps a rule from ever deciding.
#[derive(Clone, Debug)]
pub enum Shadow<'a> {
    /// These take all of it, the first in the order of their names.
    By(Vec<&'a Rule>),
    /// None of the interfaces that it names is there.
    Absent,
    /// To find out would take too long.
    Unknown,
}

/// Decisions that are asked for about one rule.
const MOST_OF_RULE: usize = 200_000;

/// About all of them: some two seconds.
const MOST: usize = 20_000_000;

/// Cells that are looked at in the time that a decision takes.
const CELLS_PER_DECISION: usize = 32;

/// The rules that can never decide, or of which that could not be told, each with why, in their order here. `image` is what
/// they were compiled to. Takes seconds at most; blocks.
///
/// # Errors
///
/// As [`super::compile`].
pub fn shadowed<'a>(
    rules: &[Placed<'a>],
    image: &Image,
) -> Result<Vec<(&'a Rule, Shadow<'a>)>, CompileError> {
    let cells = cells(rules)?;
    let mut of_rules = BTreeMap::<u32, Vec<usize>>::new();
    let mut of_kinds = BTreeMap::<(u32, u32), Vec<usize>>::new();
    for (place, cell) in cells.iter().enumerate() {
        of_rules.entry(cell.rule).or_default().push(place);
        of_kinds.entry((cell.protocol, cell.family)).or_default().push(place);
    }
    let mut work = Work { image, of_rule: 0, left: MOST };
    let mut found = Vec::new();
    for placed in rules {
        let Some(own) = of_rules.get(&placed.index) else {
            found.push((placed.rule, Shadow::Absent));
            continue;
        };
        work.of_rule = MOST_OF_RULE.min(work.left);
        let before = |cell: &Cell| {
            let same_kind = &of_kinds[&(cell.protocol, cell.family)];
            // They are in the order.
            let end = same_kind.partition_point(|place| cells[*place].rank < cell.rank);
            same_kind[..end].iter().map(|place| &cells[*place])
        };
        let own: Vec<_> = own.iter().map(|place| &cells[*place]).collect();
        match work.takers(&own, before) {
            Answer::Decides => {}
            Answer::Never(takers) => {
                let mut by: Vec<_> =
                    rules.iter().filter(|one| takers.contains(&one.index)).map(|one| one.rule).collect();
                by.sort_by(|one, other| one.name.cmp(&other.name));
                found.push((placed.rule, Shadow::By(by)));
            }
            Answer::TooMuchWork => found.push((placed.rule, Shadow::Unknown)),
        }
    }
    Ok(found)
}

struct Work<'a> {
    image: &'a Image,
    /// Decisions that may still be asked for about this rule.
    of_rule: usize,
    /// And about all.
    left: usize,
}

enum Answer {
    /// It takes something.
    Decides,
    /// These indices take all of it.
    Never(BTreeSet<u32>),
    TooMuchWork,
}

impl Work<'_> {
    fn spend(&mut self, decisions: usize) -> bool {
        let is_enough = decisions <= self.of_rule;
        self.of_rule = self.of_rule.saturating_sub(decisions);
        self.left = self.left.saturating_sub(decisions);
        is_enough
    }

    /// Who takes what the cells of one rule would.
    fn takers<'a, I: Iterator<Item = &'a Cell>>(
        &mut self,
        own: &[&'a Cell],
        before: impl Fn(&'a Cell) -> I,
    ) -> Answer {
        let mut takers = BTreeSet::new();
        // Most rules decide about the first thing that comes to mind.
        for cell in own {
            let flow = flow(cell, (cell.destination.first(), cell.source.first()), cell.ports[0].0, None);
            if self.image.decide(&flow).is_some_and(|decision| decision.rule == cell.rule) {
                return Answer::Decides;
            }
        }
        for cell in own {
            let mut looked = 0;
            let in_the_way: Vec<_> = before(cell)
                .inspect(|other| looked += 1 + other.ports.len())
                .filter(|other| other.rule != cell.rule && meet(cell, other))
                .collect();
            if !self.spend(looked / CELLS_PER_DECISION) {
                return Answer::TooMuchWork;
            }
            let pieces = Pieces::of(cell, &in_the_way);
            for destination in &pieces.destinations {
                for port in &pieces.ports {
                    if is_excepted(cell, *destination, *port) {
                        if !self.spend(1) {
                            return Answer::TooMuchWork;
                        }
                        continue;
                    }
                    for source in &pieces.sources {
                        for interface in &pieces.interfaces {
                            if !self.spend(1) {
                                return Answer::TooMuchWork;
                            }
                            let flow = flow(cell, (*destination, *source), *port, *interface);
                            match self.image.decide(&flow) {
                                Some(decision) if decision.rule == cell.rule => return Answer::Decides,
                                Some(decision) => drop(takers.insert(decision.rule)),
                                // The piece is the rule's own.
                                None => return Answer::Decides,
                            }
                        }
                    }
                }
            }
        }
        Answer::Never(takers)
    }
}

/// One point of each piece of a cell, in each dimension.
struct Pieces {
    destinations: Vec<u128>,
    ports: BTreeSet<u16>,
    sources: Vec<u128>,
    /// `None`: one that no rule names.
    interfaces: BTreeSet<Option<u32>>,
}

impl Pieces {
    /// As the cells before it, and its exceptions, cut it.
    fn of(cell: &Cell, others: &[&Cell]) -> Self {
        let exceptions = || others.iter().copied().chain([cell]).flat_map(|one| one.exceptions.iter());
        let destinations = others.iter().map(|other| other.destination);
        let destinations = destinations.chain(exceptions().map(|(prefix, _)| *prefix));
        let mut ports: BTreeSet<u16> = cell.ports.iter().map(|(first, _)| *first).collect();
        let ranges = others.iter().flat_map(|other| other.ports.iter());
        for (first, last) in ranges.chain(exceptions().flat_map(|(_, ranges)| ranges.iter())) {
            let begins = [Some(*first), last.checked_add(1)];
            ports.extend(begins.into_iter().flatten().filter(|port| is_in(&cell.ports, *port)));
        }
        let named = others.iter().flat_map(|other| other.ingress.named()).copied().map(Some);
        let interfaces = match cell.ingress.only() {
            Some(index) => BTreeSet::from([Some(index)]),
            None => named.filter(|one| cell.ingress.includes(*one)).chain([None]).collect(),
        };
        Self {
            destinations: pieces(cell.destination, destinations),
            ports,
            sources: pieces(cell.source, others.iter().map(|other| other.source)),
            interfaces,
        }
    }
}

/// An address of each part of a prefix that others cut it into: of each that lies in it what is left without those that lie in
/// that one.
fn pieces(whole: Prefix, others: impl Iterator<Item = Prefix>) -> Vec<u128> {
    let prefixes = Prefixes::new(others.filter(|other| whole.contains(*other)).chain([whole]));
    let free = |symbol: usize| {
        let (prefix, end) = (prefixes.prefix(symbol), prefixes.inside(symbol).end);
        let (mut free, mut next) = (prefix.first(), symbol + 1);
        while next < end {
            let inside = prefixes.prefix(next);
            if free < inside.first() {
                break;
            }
            if inside.last() == prefix.last() {
                // It was covered up to there.
                return None;
            }
            free = inside.last() + 1;
            next = prefixes.inside(next).end;
        }
        Some(free)
    };
    prefixes.inside(prefixes.symbol(whole)).filter_map(free).collect()
}

fn is_in(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

fn is_excepted(cell: &Cell, destination: u128, port: u16) -> bool {
    cell.exceptions
        .iter()
        .any(|(prefix, ports)| (prefix.first()..=prefix.last()).contains(&destination) && is_in(ports, port))
}

/// Whether there is anything that both would take, exceptions apart.
fn meet(one: &Cell, other: &Cell) -> bool {
    let interfaces = match (one.ingress.only(), other.ingress.only()) {
        (Some(interface), _) => other.ingress.includes(Some(interface)),
        (None, Some(interface)) => one.ingress.includes(Some(interface)),
        (None, None) => true,
    };
    let meet = |one: Prefix, other: Prefix| one.contains(other) || other.contains(one);
    interfaces
        && meet(one.destination, other.destination)
        && meet(one.source, other.source)
        && have_a_port_in_common(&one.ports, &other.ports)
}

/// Of ranges in their order, none of which touches the next: each is looked at once.
fn have_a_port_in_common(one: &[(u16, u16)], other: &[(u16, u16)]) -> bool {
    let (mut ours, mut theirs) = (one.iter().peekable(), other.iter().peekable());
    while let (Some((first, last)), Some((from, to))) = (ours.peek(), theirs.peek()) {
        if from <= last && first <= to {
            return true;
        }
        if last < from {
            ours.next();
        } else {
            theirs.next();
        }
    }
    false
}

fn flow(cell: &Cell, (destination, source): (u128, u128), port: u16, interface: Option<u32>) -> Flow {
    Flow {
        family: cell.family,
        protocol: cell.protocol,
        remote_address: words_of(source),
        local_address: words_of(destination),
        remote_port: 40_000,
        local_port: port.into(),
        // No interface has number 0, so no rule names it.
        ingress_ifindex: interface.or(cell.ingress.only()).unwrap_or(0),
    }
}
