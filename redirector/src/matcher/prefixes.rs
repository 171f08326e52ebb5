//! Prefixes of one dimension: which lies in which, and the search for the longest.

use std::collections::BTreeMap;

use ipnet::IpNet;
use redirector_ebpf::{
    FAMILY_IPV4,
    image::{Mixed, STEPS_IPV4, STEPS_IPV6, entry, hashed, prefixes, step},
};

use super::{CompileError, hashed as table, image::Builder};

/// The beginning of addresses, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Prefix {
    /// The first bit is the highest.
    bits: u128,
    pub(super) length: u8,
}

impl Prefix {
    /// Every address.
    pub(super) const ALL: Self = Self { bits: 0, length: 0 };

    pub(super) fn contains(self, other: Self) -> bool {
        self.length <= other.length && other.truncated(self.length) == self
    }

    /// Its first address.
    pub(super) fn first(self) -> u128 {
        self.bits
    }

    /// Its last address; of IPv4 with every bit set behind it.
    pub(super) fn last(self) -> u128 {
        self.bits | !mask(self.length)
    }

    fn truncated(self, length: u8) -> Self {
        Self { bits: self.bits & mask(length), length }
    }

    /// As an address in a flow.
    fn words(self) -> [u32; 4] {
        words_of(self.bits)
    }
}

fn mask(length: u8) -> u128 {
    !u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// An address as in a flow.
pub(super) fn words_of(bits: u128) -> [u32; 4] {
    bytemuck::cast(bits.to_be_bytes())
}

impl From<IpNet> for Prefix {
    fn from(net: IpNet) -> Self {
        let bits = match net {
            IpNet::V4(net) => u128::from(net.network().to_bits()) << 96,
            IpNet::V6(net) => net.network().to_bits(),
        };
        Self { bits, length: net.prefix_len() }
    }
}

/// Prefixes of one family, each with a symbol: 1 and up, so that those that lie in one follow it. Symbol 0 is
/// [`Prefix::ALL`].
pub(super) struct Prefixes {
    /// By symbol.
    list: Vec<Prefix>,
    /// By symbol: that of the longest prefix that it lies in.
    parents: Vec<usize>,
    /// By symbol: behind the last that lies in it.
    ends: Vec<usize>,
}

impl Prefixes {
    pub(super) fn new(prefixes: impl Iterator<Item = Prefix>) -> Self {
        let mut list: Vec<_> = prefixes.chain([Prefix::ALL]).collect();
        list.sort_unstable();
        list.dedup();
        let (mut parents, mut ends) = (vec![0; list.len()], vec![list.len(); list.len()]);
        let mut open = vec![0];
        for symbol in 1..list.len() {
            while let Some(last) = open.pop() {
                if list[last].contains(list[symbol]) {
                    open.push(last);
                    break;
                }
                ends[last] = symbol;
            }
            parents[symbol] = *open.last().expect("all lie in the first");
            open.push(symbol);
        }
        Self { list, parents, ends }
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn prefix(&self, symbol: usize) -> Prefix {
        self.list[symbol]
    }

    /// The symbol of a prefix that is among them.
    pub(super) fn symbol(&self, prefix: Prefix) -> usize {
        self.list.binary_search(&prefix).expect("the prefix was there when the list was made")
    }

    /// The symbol of the longest prefix that this one lies in, itself excluded.
    pub(super) fn parent(&self, symbol: usize) -> usize {
        self.parents[symbol]
    }

    /// The symbols of all that lie in one, it included.
    pub(super) fn inside(&self, symbol: usize) -> std::ops::Range<usize> {
        symbol..self.ends[symbol]
    }

    /// Writes the search, and gives the words of its head, with no lists; `None` when two keys are the same to the hash.
    pub(super) fn write(
        &self,
        builder: &mut Builder,
        family: u32,
    ) -> Result<Option<[u32; prefixes::WORDS as usize]>, CompileError> {
        let is_ipv4 = family == FAMILY_IPV4;
        let mut head = [0; prefixes::WORDS as usize];
        let symbols: Vec<_> = (1..self.len()).collect();
        let depth = if is_ipv4 { STEPS_IPV4 } else { STEPS_IPV6 };
        let mut entries = Vec::new();
        head[prefixes::SEARCH as usize] = self.search(builder, &symbols, depth, &mut entries)?;
        if entries.is_empty() {
            return Ok(Some(head));
        }
        let width = if is_ipv4 { 1 } else { 4 };
        let mixed = if is_ipv4 { Mixed::prefix::<1> } else { Mixed::prefix::<4> };
        let entries: Vec<_> = entries
            .into_iter()
            .map(|Entry { prefix, symbol, longer }| {
                let (address, length) = (prefix.words(), u32::from(prefix.length));
                let mut words = address[..width].to_vec();
                words.extend([length, u32::try_from(symbol).expect("there are few"), longer]);
                (mixed(builder.seed, address, length), words)
            })
            .collect();
        let Some(table) = table::write(builder, &entries, width + entry::WORDS as usize)? else {
            return Ok(None);
        };
        head[prefixes::ENTRIES as usize..][..hashed::WORDS as usize].copy_from_slice(&table);
        Ok(Some(head))
    }

    /// Writes the steps that find the longest of some prefixes, in so many steps at most, and gives where the first is;
    /// nothing for no prefixes. Collects the entries that they look for.
    fn search(
        &self,
        builder: &mut Builder,
        symbols: &[usize],
        depth: u32,
        entries: &mut Vec<Entry>,
    ) -> Result<u32, CompileError> {
        let mut lengths = BTreeMap::<u8, usize>::new();
        for symbol in symbols {
            *lengths.entry(self.list[*symbol].length).or_default() += 1;
        }
        let Some(length) = middle(&lengths.into_iter().collect::<Vec<_>>(), depth) else { return Ok(0) };
        let is_shorter = |symbol: &usize| self.list[*symbol].length < length;
        let (shorter, others): (Vec<_>, Vec<_>) = symbols.iter().copied().partition(is_shorter);
        // Each beginning of that length is looked for, and what is longer only among those that have it.
        for group in others.chunk_by(|one, two| self.beginning(*one, length) == self.beginning(*two, length))
        {
            let is_longer = |symbol: &usize| self.list[*symbol].length > length;
            let longer: Vec<_> = group.iter().copied().filter(is_longer).collect();
            // The longest that the search may stop at when it finds no more than this beginning.
            let mut symbol = group[0];
            while self.list[symbol].length > length {
                symbol = self.parents[symbol];
            }
            let longer = self.search(builder, &longer, depth - 1, entries)?;
            entries.push(Entry { prefix: self.beginning(group[0], length), symbol, longer });
        }
        let mut words = [0; step::WORDS as usize];
        words[step::LENGTH as usize] = length.into();
        words[step::SHORTER as usize] = self.search(builder, &shorter, depth - 1, entries)?;
        words[step::MASK as usize..].copy_from_slice(&words_of(mask(length)));
        builder.intern(&words)
    }

    fn beginning(&self, symbol: usize, length: u8) -> Prefix {
        self.list[symbol].truncated(length)
    }
}

/// What a step looks for.
struct Entry {
    prefix: Prefix,
    symbol: usize,
    /// At the next step.
    longer: u32,
}

/// The length to look for first, of these, each with how many prefixes have it: as many are shorter as longer, as far as no
/// way becomes longer than `depth`.
fn middle(lengths: &[(u8, usize)], depth: u32) -> Option<u8> {
    let last = lengths.len().checked_sub(1)?;
    // On either side of it.
    let room = (1_usize << (depth - 1)) - 1;
    let all: usize = lengths.iter().map(|(_, count)| count).sum();
    let mut before = 0;
    let half = lengths.iter().position(|(_, count)| {
        before += count;
        4 * before >= all
    });
    let place = half.unwrap_or(last).clamp(last.saturating_sub(room), room.min(last));
    Some(lengths[place].0)
}
