//! The tables of one protocol and family: one for each interface that rules name, and one for all others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use redirector_ebpf::{
    FAMILY_IPV4,
    image::{NO_RANK, class, head, interfaces, leaf, looks, pages, prefixes, table},
};

use super::{
    CompileError,
    cell::Cell,
    image::Builder,
    ports::{Ranges, sweep},
    prefixes::{Prefix, Prefixes},
    rests::Rests,
};
use crate::config::without;

/// What a cell looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// The port.
    Ports,
    /// The destination, and perhaps the source.
    Destination,
    /// The source, and no destination.
    Source,
    /// An interface that the table is not of: what it says is in another table, and its ports have a class here.
    Elsewhere,
}

impl Lane {
    fn of(cell: &Cell) -> Self {
        if cell.destination != Prefix::ALL || !cell.exceptions.is_empty() {
            Self::Destination
        } else if cell.source != Prefix::ALL {
            Self::Source
        } else {
            Self::Ports
        }
    }
}

/// What the tables of one protocol and family have in common: the addresses that rules name, whatever the interface.
struct Addresses {
    destinations: Prefixes,
    sources: Prefixes,
    /// By the ranks of their cells.
    rests: HashMap<Vec<u32>, u32>,
}

impl Addresses {
    fn of(cells: &[&Cell]) -> Self {
        let of_destinations = cells.iter().filter(|cell| Lane::of(cell) == Lane::Destination);
        let exceptions =
            of_destinations.clone().flat_map(|cell| cell.exceptions.iter().map(|(prefix, _)| *prefix));
        let destinations = of_destinations.clone().map(|cell| cell.destination).chain(exceptions);
        Self {
            destinations: Prefixes::new(destinations),
            sources: Prefixes::new(cells.iter().map(|cell| cell.source)),
            rests: HashMap::new(),
        }
    }
}

/// Writes the tables of one protocol and family; the head of that for all interfaces that no rule names is at `at`. `false`
/// when two hashes are the same.
pub(super) fn build(
    builder: &mut Builder,
    rests: &mut Rests,
    at: u32,
    family: u32,
    cells: &[&Cell],
) -> Result<bool, CompileError> {
    let named: BTreeSet<u32> = cells.iter().flat_map(|cell| cell.ingress.named()).copied().collect();
    let mut addresses = Addresses::of(cells);
    let Some(destinations) = addresses.destinations.write(builder, family)? else { return Ok(false) };
    let Some(sources) = addresses.sources.write(builder, family)? else { return Ok(false) };
    let (of_destinations, of_sources) = if family == FAMILY_IPV4 {
        (looks::IPV4_DESTINATIONS, looks::IPV4_SOURCES)
    } else {
        (looks::IPV6_DESTINATIONS, looks::IPV6_SOURCES)
    };
    for (prefixes, look) in [(&destinations, of_destinations), (&sources, of_sources)] {
        if prefixes[prefixes::SEARCH as usize] != 0 {
            builder.look_at(look);
        }
    }
    let mut words = vec![u32::try_from(named.len()).expect("few")];
    let mut tables = vec![(at, None)];
    for interface in named {
        let table = builder.push(&[0; table::WORDS as usize])?;
        words.extend([interface, table]);
        tables.push((table, Some(interface)));
    }
    if tables.len() > 1 {
        if tables.len() > 1 + interfaces::MAX as usize {
            return Err(CompileError::TooManyInterfaces);
        }
        let list = builder.push(&words)?;
        builder.set(at + table::INTERFACES, list);
        builder.look_at(looks::INTERFACES);
    }
    for (at, interface) in tables {
        let write = |builder: &mut Builder, at, words: &[u32]| {
            for (at, word) in (at..).zip(words) {
                builder.set(at, *word);
            }
        };
        write(builder, at + table::DESTINATIONS, &destinations);
        write(builder, at + table::SOURCES, &sources);
        table(builder, rests, at, cells, interface, &mut addresses)?;
    }
    Ok(true)
}

/// Writes the table of one interface, or of those that no rule names.
fn table(
    builder: &mut Builder,
    rests: &mut Rests,
    at: u32,
    cells: &[&Cell],
    interface: Option<u32>,
    addresses: &mut Addresses,
) -> Result<(), CompileError> {
    let lane = |cell: &Cell| if cell.ingress.includes(interface) { Lane::of(cell) } else { Lane::Elsewhere };
    let in_lane = |sought| cells.iter().copied().filter(move |cell| lane(cell) == sought);
    let mut lanes: Vec<_> = cells.iter().map(|cell| (lane(cell), *cell)).collect();
    // Whoever looks into the table of an interface knows that a rule names the port.
    lanes.retain(|(lane, _)| interface.is_none() || *lane != Lane::Elsewhere);
    rests.work(lanes.iter().map(|(_, cell)| cell.ports.len()).sum())?;
    let by_port = ports(builder, &lanes)?;
    builder.set(at + table::PORTS, by_port.0);
    builder.set(at + table::CLASSES, by_port.1);

    let Addresses { destinations, sources, rests: known } = addresses;
    let mut destined = Destined { rests, sources, known };
    let of_destinations = in_lane(Lane::Destination);
    let lists = lists(builder, destinations, of_destinations, |cell| cell.destination, &mut destined)?;
    builder.set(at + table::DESTINATIONS + prefixes::LISTS, lists);
    let of_sources = in_lane(Lane::Source);
    let lists = self::lists(builder, sources, of_sources, |cell| cell.source, &mut Sourced(rests))?;
    builder.set(at + table::SOURCES + prefixes::LISTS, lists);
    Ok(())
}

fn leaf(builder: &mut Builder, cell: &Cell) -> Result<u32, CompileError> {
    let mut words = [0; leaf::WORDS as usize];
    words[leaf::RANK as usize] = cell.rank;
    words[leaf::RULE as usize] = cell.rule;
    words[leaf::PACKED as usize] = cell.packed;
    builder.intern(&words)
}

/// Writes classes and pages; gives where they are.
fn ports(builder: &mut Builder, cells: &[(Lane, &Cell)]) -> Result<(u32, u32), CompileError> {
    let sets = cells.iter().enumerate().map(|(index, (lane, cell))| ((*lane, index), &cell.ports[..]));
    let classes = sweep(sets, |in_force| {
        let first = |lane| {
            let found = in_force.range((lane, 0)..).next();
            found.filter(|(its, _)| *its == lane).map(|(_, index)| cells[*index].1)
        };
        let rank = |lane| first(lane).map_or(NO_RANK, |cell| cell.rank);
        let mut words = [0; class::WORDS as usize];
        words[class::LEAF as usize] =
            first(Lane::Ports).map_or(Ok(head::NOTHING), |cell| leaf(builder, cell))?;
        words[class::DESTINATION_RANK as usize] = rank(Lane::Destination);
        words[class::SOURCE_RANK as usize] = rank(Lane::Source);
        Ok((in_force.is_empty(), words))
    })?;
    let mut none = [NO_RANK; class::WORDS as usize];
    none[class::LEAF as usize] = head::NOTHING;
    let mut known = HashMap::from([((true, none), 0_u16)]);
    let mut written = none.to_vec();
    let mut numbers = vec![0_u16; 1 << 16];
    let ends = classes.iter().skip(1).map(|(port, _)| usize::from(*port)).chain([numbers.len()]);
    for ((port, class), end) in classes.iter().zip(ends) {
        // There are fewer than ports: port 0 is nobody's.
        let next = u16::try_from(known.len()).expect("at most 65,536, the first one taken");
        let number = *known.entry(*class).or_insert_with(|| {
            written.extend(class.1);
            next
        });
        numbers[usize::from(*port)..end].fill(number);
    }
    let (mut known_pages, mut by_page, mut of_ports) = (HashMap::new(), Vec::new(), Vec::new());
    for page in numbers.chunks(pages::PORTS as usize) {
        let next = u16::try_from(known_pages.len()).expect("fewer than ports");
        by_page.push(*known_pages.entry(page).or_insert_with(|| {
            of_ports.extend(page);
            next
        }));
    }
    if builder.is_narrow() && known.len().max(known_pages.len()) > 1 << 8 {
        return Err(CompileError::TooLarge);
    }
    let width = if builder.is_narrow() { 8 } else { 16 };
    let parts = |numbers: &[u16]| -> Vec<u32> {
        let word = |parts: &[u16]| parts.iter().rev().fold(0, |word, part| word << width | u32::from(*part));
        numbers.chunks(32 / width).map(word).collect()
    };
    let pages = [parts(&by_page), parts(&of_ports)].concat();
    Ok((builder.intern(&pages)?, builder.intern(&written)?))
}

/// What a list of ports says of a range.
trait Values {
    /// The number of the rest of these cells, in order.
    fn value(&mut self, builder: &mut Builder, cells: &[&Cell]) -> Result<u32, CompileError>;

    /// Whether a cell that has come so far takes the packet, whatever else there is to see.
    fn decides(&self, cell: &Cell) -> bool;

    fn work(&mut self, more: usize) -> Result<(), CompileError>;
}

/// Writes a list of ports for each prefix, of the cells that it lies in; gives where these lists are listed.
fn lists<'a>(
    builder: &mut Builder,
    prefixes: &Prefixes,
    cells: impl Iterator<Item = &'a Cell>,
    prefix: impl Fn(&Cell) -> Prefix,
    values: &mut impl Values,
) -> Result<u32, CompileError> {
    let mut own: Vec<Vec<&Cell>> = vec![Vec::new(); prefixes.len()];
    for cell in cells {
        own[prefixes.symbol(prefix(cell))].push(cell);
    }
    let mut all: Vec<Rc<Vec<&Cell>>> = Vec::new();
    let mut written = Vec::new();
    for (symbol, own) in own.into_iter().enumerate() {
        let mut here = if symbol == 0 { Rc::default() } else { Rc::clone(&all[prefixes.parent(symbol)]) };
        if !own.is_empty() {
            let mut merged: Vec<_> = here.iter().copied().chain(own).collect();
            merged.sort_unstable_by_key(|cell| cell.rank);
            here = Rc::new(merged);
        }
        values.work(here.len())?;
        written.push(list(builder, prefixes.prefix(symbol), &here, values)?);
        all.push(here);
    }
    builder.intern(&written)
}

/// The list of ports of one prefix.
fn list(
    builder: &mut Builder,
    prefix: Prefix,
    cells: &[&Cell],
    values: &mut impl Values,
) -> Result<u32, CompileError> {
    // Cells of one match have the same ports, and the same exceptions.
    let mut known = HashMap::new();
    let mut ports = Vec::new();
    for cell in cells {
        let of_match = (Rc::as_ptr(&cell.ports), Rc::as_ptr(&cell.exceptions));
        let here = match known.get(&of_match) {
            Some(here) => Rc::clone(here),
            None => {
                let here = left(cell, prefix, values)?;
                known.insert(of_match, Rc::clone(&here));
                here
            }
        };
        values.work(here.len())?;
        ports.push(here);
    }
    let ranges = sweep(ports.iter().map(|ports| &**ports).enumerate(), |in_force: &BTreeSet<usize>| {
        let mut decisive = Vec::new();
        for cell in in_force.iter().map(|index| cells[*index]) {
            decisive.push(cell);
            if values.decides(cell) {
                // Nothing behind it is ever looked at.
                break;
            }
        }
        values.work(decisive.len())?;
        values.value(builder, &decisive)
    })?;
    let mut words = vec![u32::try_from(ranges.len()).expect("fewer than ports")];
    words.extend(ranges.iter().map(|(port, rest)| u32::from(*port) << 16 | rest));
    builder.intern(&words)
}

/// The ports of a cell at a destination: without what is excepted there.
fn left(cell: &Cell, prefix: Prefix, values: &mut impl Values) -> Result<Ranges, CompileError> {
    let mut left = Rc::clone(&cell.ports);
    values.work(cell.exceptions.len())?;
    for (_, others) in cell.exceptions.iter().filter(|(outside, _)| outside.contains(prefix)) {
        values.work(left.len() + others.len())?;
        left = without(&left, others).into();
    }
    Ok(left)
}

/// Where the source has been looked at: the first cell.
struct Sourced<'a>(&'a mut Rests);

impl Values for Sourced<'_> {
    fn value(&mut self, builder: &mut Builder, cells: &[&Cell]) -> Result<u32, CompileError> {
        let Some(cell) = cells.first() else { return Ok(0) };
        let leaf = leaf(builder, cell)?;
        self.0.plain(leaf)
    }

    fn decides(&self, _: &Cell) -> bool {
        true
    }

    fn work(&mut self, more: usize) -> Result<(), CompileError> {
        self.0.work(more)
    }
}

/// Where the destination has been looked at, and the source has not.
struct Destined<'a> {
    rests: &'a mut Rests,
    sources: &'a Prefixes,
    /// As [`Addresses::rests`].
    known: &'a mut HashMap<Vec<u32>, u32>,
}

impl Values for Destined<'_> {
    fn value(&mut self, builder: &mut Builder, cells: &[&Cell]) -> Result<u32, CompileError> {
        let Some(first) = cells.first() else { return Ok(0) };
        if first.source == Prefix::ALL {
            let leaf = leaf(builder, first)?;
            return self.rests.plain(leaf);
        }
        let ranks: Vec<_> = cells.iter().map(|cell| cell.rank).collect();
        if let Some(number) = self.known.get(&ranks) {
            return Ok(*number);
        }
        let last = cells.iter().find(|cell| cell.source == Prefix::ALL);
        let leaf = last.map_or(Ok(head::NOTHING), |cell| self::leaf(builder, cell))?;
        let number = self.rests.add(leaf, true)?;
        builder.look_at(looks::PAIRS);
        // The first cell of the order is entered last, over the others.
        let mut by_source = BTreeMap::new();
        for cell in cells.iter().rev().filter(|cell| cell.source != Prefix::ALL) {
            let leaf = self::leaf(builder, cell)?;
            let inside = self.sources.inside(self.sources.symbol(cell.source));
            self.rests.work(inside.len())?;
            by_source.extend(inside.map(|symbol| (symbol, leaf)));
        }
        for (symbol, leaf) in by_source {
            self.rests.pair(builder.seed, number, symbol, leaf)?;
        }
        self.known.insert(ranks, number);
        Ok(number)
    }

    fn decides(&self, cell: &Cell) -> bool {
        cell.source == Prefix::ALL
    }

    fn work(&mut self, more: usize) -> Result<(), CompileError> {
        self.rests.work(more)
    }
}
