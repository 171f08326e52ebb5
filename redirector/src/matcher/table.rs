//! The table of one family.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use redirector_ebpf::image::{LARGE, Mixed, NO_RANK, class, head, leaf, pair, rest, table};

use super::{
    CompileError,
    cell::Cell,
    hashed,
    image::Builder,
    ports::{Ranges, sweep},
    prefixes::{Prefix, Prefixes},
};
use crate::config::without;

/// What may be looked at while rules are compiled, which takes a second or two: cells, symbols, port ranges.
const WORK: usize = 30_000_000;

/// What a cell looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// The port.
    Ports,
    /// The destination, and perhaps the source.
    Destination,
    /// The source, and no destination.
    Source,
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

/// Rests of all tables, and their pairs.
pub(super) struct Rests {
    words: Vec<u32>,
    /// Those without pairs, by their leaves.
    plain: HashMap<u32, u32>,
    pairs: Vec<(Mixed, Vec<u32>)>,
    /// What was looked at.
    work: usize,
}

impl Rests {
    pub(super) fn new() -> Self {
        Self { words: vec![0; rest::WORDS as usize], plain: HashMap::new(), pairs: Vec::new(), work: 0 }
    }

    fn work(&mut self, more: usize) -> Result<(), CompileError> {
        self.work += more;
        if self.work > WORK { Err(CompileError::TooMuchWork) } else { Ok(()) }
    }

    /// A new one; gives its number.
    fn add(&mut self, leaf: u32, has_pairs: bool) -> Result<u32, CompileError> {
        let number = half(self.words.len() / rest::WORDS as usize)?;
        let mut words = [0; rest::WORDS as usize];
        words[rest::LEAF as usize] = leaf;
        words[rest::HAS_PAIRS as usize] = has_pairs.into();
        self.words.extend(words);
        Ok(number)
    }

    /// One that is a leaf and nothing more.
    fn plain(&mut self, leaf: u32) -> Result<u32, CompileError> {
        if let Some(number) = self.plain.get(&leaf) {
            return Ok(*number);
        }
        let number = self.add(leaf, false)?;
        self.plain.insert(leaf, number);
        Ok(number)
    }

    fn pair(&mut self, seed: u64, number: u32, symbol: usize, leaf: u32) -> Result<(), CompileError> {
        if self.pairs.len() * pair::WORDS as usize >= LARGE {
            return Err(CompileError::TooLarge);
        }
        let symbol = half(symbol)?;
        let mut words = vec![0; pair::WORDS as usize];
        words[pair::KEY as usize] = number << 16 | symbol;
        words[pair::LEAF as usize] = leaf;
        self.pairs.push((Mixed::pair(seed, number, symbol), words));
        Ok(())
    }

    /// Writes all of it. `false` when two keys are the same to the hash.
    pub(super) fn write(self, builder: &mut Builder) -> Result<bool, CompileError> {
        let rests = builder.push(&self.words)?;
        builder.set(head::RESTS, rests);
        if self.pairs.is_empty() {
            return Ok(true);
        }
        let Some(table) = hashed::write(builder, &self.pairs, pair::WORDS as usize)? else {
            return Ok(false);
        };
        for (at, word) in (head::PAIRS..).zip(table) {
            builder.set(at, word);
        }
        Ok(true)
    }
}

/// A number that has to fit into half a word.
fn half(number: usize) -> Result<u32, CompileError> {
    u16::try_from(number).map(u32::from).map_err(|_| CompileError::TooLarge)
}

/// Writes the table of one family, whose head is at `at`. `false` when two hashes are the same.
pub(super) fn build(
    builder: &mut Builder,
    rests: &mut Rests,
    at: u32,
    family: u32,
    cells: &[&Cell],
) -> Result<bool, CompileError> {
    let in_lane = |lane| cells.iter().copied().filter(move |cell| Lane::of(cell) == lane);
    let of_destinations = in_lane(Lane::Destination);
    let exceptions =
        of_destinations.clone().flat_map(|cell| cell.exceptions.iter().map(|(prefix, _)| *prefix));
    let destinations = Prefixes::new(of_destinations.clone().map(|cell| cell.destination).chain(exceptions));
    let sources = Prefixes::new(cells.iter().map(|cell| cell.source));

    rests.work(cells.iter().map(|cell| cell.ports.len()).sum())?;
    let by_port = ports(builder, cells)?;
    builder.set(at + table::PORTS, by_port.0);
    builder.set(at + table::CLASSES, by_port.1);

    let mut destined = Destined { rests, sources: &sources, known: HashMap::new() };
    let lists = lists(builder, &destinations, of_destinations, |cell| cell.destination, &mut destined)?;
    let Some(mut words) = destinations.write(builder, family)? else { return Ok(false) };
    *words.last_mut().expect("it has words") = lists;
    for (at, word) in (at + table::DESTINATIONS..).zip(words) {
        builder.set(at, word);
    }

    let lists =
        self::lists(builder, &sources, in_lane(Lane::Source), |cell| cell.source, &mut Sourced(rests))?;
    let Some(mut words) = sources.write(builder, family)? else { return Ok(false) };
    *words.last_mut().expect("it has words") = lists;
    for (at, word) in (at + table::SOURCES..).zip(words) {
        builder.set(at, word);
    }
    Ok(true)
}

fn leaf(builder: &mut Builder, cell: &Cell) -> Result<u32, CompileError> {
    let mut words = [0; leaf::WORDS as usize];
    words[leaf::RANK as usize] = cell.rank;
    words[leaf::RULE as usize] = cell.rule;
    words[leaf::PACKED as usize] = cell.packed;
    builder.intern(&words)
}

/// Writes classes and pages; gives where they are.
fn ports(builder: &mut Builder, cells: &[&Cell]) -> Result<(u32, u32), CompileError> {
    let sets = cells.iter().enumerate().map(|(index, cell)| ((Lane::of(cell), index), &cell.ports[..]));
    let classes = sweep(sets, |in_force| {
        let first = |lane| {
            let found = in_force.range((lane, 0)..).next();
            found.filter(|(its, _)| *its == lane).map(|(_, index)| cells[*index])
        };
        let rank = |lane| first(lane).map_or(NO_RANK, |cell| cell.rank);
        let mut words = [0; class::WORDS as usize];
        words[class::LEAF as usize] = first(Lane::Ports).map_or(Ok(0), |cell| leaf(builder, cell))?;
        words[class::DESTINATION_RANK as usize] = rank(Lane::Destination);
        words[class::SOURCE_RANK as usize] = rank(Lane::Source);
        Ok(words)
    })?;
    let none = {
        let mut words = [NO_RANK; class::WORDS as usize];
        words[class::LEAF as usize] = 0;
        words
    };
    let mut known = HashMap::from([(none, 0_u16)]);
    let mut written = none.to_vec();
    let mut numbers = vec![0_u16; 1 << 16];
    let ends = classes.iter().skip(1).map(|(port, _)| usize::from(*port)).chain([numbers.len()]);
    for ((port, words), end) in classes.iter().zip(ends) {
        // There are fewer than ports: port 0 is nobody's.
        let next = u16::try_from(known.len()).expect("at most 65,536, the first one taken");
        let number = *known.entry(*words).or_insert_with(|| {
            written.extend(words);
            next
        });
        numbers[usize::from(*port)..end].fill(number);
    }
    let mut pages = Vec::new();
    for page in numbers.chunks(256) {
        let words: Vec<u32> = page.chunks(2).map(|two| u32::from(two[0]) | u32::from(two[1]) << 16).collect();
        pages.push(builder.intern(&words)?);
    }
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
    if ranges.iter().all(|(_, value)| *value == 0) {
        return Ok(0);
    }
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
    /// By the ranks of their cells.
    known: HashMap<Vec<u32>, u32>,
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
        let leaf = last.map_or(Ok(0), |cell| self::leaf(builder, cell))?;
        let number = self.rests.add(leaf, true)?;
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
