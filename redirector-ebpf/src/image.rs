//! A compiled rule set: words, and where in them what is.
//!
//! The rules of a namespace, compiled so that a decision costs the same however many there are. An image has a table
//! for each address family; in a table each packet takes this way:
//!
//! 1. Its port leads to a *class*: what is the same for all ports that the same rules name. Class 0: no rule does, and
//!    that is the end for most packets that nobody asked for.
//! 2. Of rules that look at nothing else the class names the first, as a *leaf*.
//! 3. Where rules that name a destination address take the port, the longest prefix of that address gives a *symbol*,
//!    the symbol a list of port ranges, and the packet's range a *rest*: a leaf, and whether rules before it ask for the
//!    source. Then rest and symbol of the source lead to the leaf.
//! 4. Where rules that name a source only take the port, the symbol of the source leads to a leaf likewise.
//! 5. Of the leaves that were found the one with the least rank decides.
//!
//! The longest prefix is found by binary search over the lengths that occur; where a beginning was found, over those of the
//! prefixes that begin so (Waldvogel, Varghese, Turner, Plattner: "Scalable High Speed IP Routing Lookups", SIGCOMM 1997).
//! There is an entry for each prefix, and one for each beginning of it that the search looks at on its way. Entries are found in tables without collisions: a displacement for each bucket of keys
//! (Belazzougui, Botelho, Dietzfelbinger: "Hash, displace, and compress", ESA 2009).
//!
//! Words are 32 bits. "At" is an index of a word in the image. 0 is nothing, wherever an index is meant.

use crate::{Decision, FAMILY_IPV4, FAMILY_IPV6, Flow};

/// The size of an image is one of three, in words, powers of 2: a map's value has one size, and most namespaces have few
/// rules. The largest is what a value can have on Linux 5.10 (`KMALLOC_MAX_SIZE`, kernel/bpf/arraymap.c).
pub const SMALL: usize = 1 << 13;
/// The second size.
pub const MEDIUM: usize = 1 << 16;
/// The third size.
pub const LARGE: usize = 1 << 20;

/// The head of an image.
pub mod head {
    /// How many words are in use.
    pub const LENGTH: u32 = 0;
    /// Of every hash in the image: low word, high word.
    pub const SEED: u32 = 1;
    /// At the [`super::rest`]s.
    pub const RESTS: u32 = 3;
    /// A [`super::hashed`] table of [`super::pair`]s.
    pub const PAIRS: u32 = 4;
    /// The [`super::table`]s, that of IPv4 first.
    pub const TABLES: u32 = 8;
    /// Words of the head.
    pub const WORDS: u32 = TABLES + 2 * super::table::WORDS;
}

/// The table of one family, relative to its begin.
pub mod table {
    /// At 256 words, one for each high byte of a port: at its page of 128 words, in each two classes, the lower port's
    /// in the lower half.
    pub const PORTS: u32 = 0;
    /// At the [`super::class`]es.
    pub const CLASSES: u32 = 1;
    /// The [`super::prefixes`] of destinations.
    pub const DESTINATIONS: u32 = 2;
    /// The [`super::prefixes`] of sources.
    pub const SOURCES: u32 = DESTINATIONS + super::prefixes::WORDS;
    /// Words of a table's head.
    pub const WORDS: u32 = SOURCES + super::prefixes::WORDS;
}

/// A class, relative to its begin.
pub mod class {
    /// At the leaf of the first rule that names neither destination nor source.
    pub const LEAF: u32 = 0;
    /// The least rank of the rules that name a destination, [`super::NO_RANK`] without any.
    pub const DESTINATION_RANK: u32 = 1;
    /// The least rank of the rules that name a source only.
    pub const SOURCE_RANK: u32 = 2;
    /// Words of a class.
    pub const WORDS: u32 = 3;
}

/// The prefixes of one dimension, relative to their begin.
pub mod prefixes {
    /// At the first step of the search; nothing when no rule names an address.
    pub const SEARCH: u32 = 0;
    /// A [`super::hashed`] table: prefix → [`super::entry`].
    pub const ENTRIES: u32 = 1;
    /// At a list of ports for each symbol, that of symbol 0 first: no prefix.
    pub const LISTS: u32 = ENTRIES + super::hashed::WORDS;
    /// Words of these.
    pub const WORDS: u32 = LISTS + 1;
}

/// A step of the search for the longest prefix.
pub mod step {
    /// The prefix length that is looked for.
    pub const LENGTH: u32 = 0;
    /// At the next step when there is no such prefix.
    pub const SHORTER: u32 = 1;
    /// The length as a mask, as an address in a flow: 4 words.
    pub const MASK: u32 = 2;
    /// Words of a step.
    pub const WORDS: u32 = 6;
}

/// What follows the words of the address in an entry of prefixes: 1 for IPv4, 4 for IPv6.
pub mod entry {
    /// The prefix length, part of the key.
    pub const LENGTH: u32 = 0;
    /// The symbol of the longest prefix that rules name and that this one is or lies in.
    pub const SYMBOL: u32 = 1;
    /// At the next step, for longer ones.
    pub const LONGER: u32 = 2;
    /// Words of these.
    pub const WORDS: u32 = 3;
}

/// A table without collisions.
pub mod hashed {
    /// At a displacement for each bucket.
    pub const DISPLACEMENTS: u32 = 0;
    /// Buckets, a power of 2, less 1.
    pub const BUCKET_MASK: u32 = 1;
    /// At the slots.
    pub const SLOTS: u32 = 2;
    /// How many slots.
    pub const LENGTH: u32 = 3;
    /// Words of a table's head.
    pub const WORDS: u32 = 4;
}

/// What a rest says of a source.
pub mod pair {
    /// Number of the rest, in the upper half, and symbol of the source.
    pub const KEY: u32 = 0;
    /// At the leaf.
    pub const LEAF: u32 = 1;
    /// Words of a pair.
    pub const WORDS: u32 = 2;
}

/// A list of ports: how many ranges, then of each a word with its first port in the upper half and the number of its rest in
/// the lower; in order, and the first begins at port 0.
pub mod ports {
    /// How many ranges.
    pub const LENGTH: u32 = 0;
    /// The ranges.
    pub const RANGES: u32 = 1;
    /// The most steps that finding a port takes.
    pub const STEPS: u32 = 17;
}

/// A rest: what is left to look at behind address and port. Rest 0 is nothing.
pub mod rest {
    /// At the leaf when no pair with the source is found.
    pub const LEAF: u32 = 0;
    /// Whether there are pairs.
    pub const HAS_PAIRS: u32 = 1;
    /// Words of a rest.
    pub const WORDS: u32 = 2;
}

/// What a rule decides.
pub mod leaf {
    /// Its place in the order in which rules decide, the first 0. Which order that is, only the compiler knows.
    pub const RANK: u32 = 0;
    /// [`crate::Decision::rule`].
    pub const RULE: u32 = 1;
    /// [`crate::Decision::packed`].
    pub const PACKED: u32 = 2;
    /// Words of a leaf.
    pub const WORDS: u32 = 3;
}

/// Behind every rank.
pub const NO_RANK: u32 = u32::MAX;

/// The most steps of a search: lengths 1 to 32.
pub const STEPS_IPV4: u32 = 6;
/// Lengths 1 to 128.
pub const STEPS_IPV6: u32 = 8;

/// A key of a [`hashed`] table, mixed: every bit of it changes every bit that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mixed(u64);

impl Mixed {
    // Those of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
    const FIRST: u64 = 0xbf58_476d_1ce4_e5b9;
    const SECOND: u64 = 0x94d0_49bb_1331_11eb;
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Of two numbers.
    #[inline(always)]
    #[must_use]
    pub const fn pair(seed: u64, low: u32, high: u32) -> Self {
        let mut mixed = (low as u64 | (high as u64) << 32) ^ seed;
        mixed = (mixed ^ mixed >> 32).wrapping_mul(Self::FIRST);
        mixed = (mixed ^ mixed >> 29).wrapping_mul(Self::SECOND);
        Self(mixed ^ mixed >> 32)
    }

    /// Of an address of as many words, with a prefix length.
    #[inline(always)]
    #[must_use]
    pub const fn prefix<const WORDS: usize>(seed: u64, address: [u32; 4], length: u32) -> Self {
        let [a, b, c, d] = address;
        if WORDS == 1 {
            return Self::pair(seed, a, length);
        }
        let begin = seed.wrapping_add((length as u64).wrapping_mul(Self::STEP));
        let begin = ((a as u64 | (b as u64) << 32) ^ begin).wrapping_mul(Self::FIRST);
        Self::pair(begin ^ begin >> 32, c, d)
    }

    /// Its bucket.
    #[inline(always)]
    #[must_use]
    pub const fn bucket(self, mask: u32) -> u32 {
        (self.0 >> 40) as u32 & mask
    }

    /// Its slot, displaced.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self, displacement: u32, length: u32) -> u32 {
        let step = (self.0 >> 20) as u32 | 1;
        let displaced = (self.0 as u32).wrapping_add(displacement.wrapping_mul(step));
        // Lemire: "Fast Random Integer Generation in an Interval", 2019.
        ((displaced as u64 * length as u64) >> 32) as u32
    }
}

/// The words of an image. `N` is a power of 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Words<const N: usize>(pub [u32; N]);

impl<const N: usize> Words<N> {
    /// A word. The mask is what the verifier wants; an image that was compiled never meets it.
    #[inline(always)]
    fn at(&self, index: u32) -> u32 {
        self.0[index as usize & (N - 1)]
    }

    /// One of two halves in each word.
    #[inline(always)]
    fn half_at(&self, begin: u32, index: u32) -> u32 {
        self.at(begin + (index >> 1)) >> ((index & 1) << 4) & 0xffff
    }

    #[inline(always)]
    fn seed(&self) -> u64 {
        u64::from(self.at(head::SEED)) | u64::from(self.at(head::SEED + 1)) << 32
    }

    /// What is decided about a flow: by the first rule in the order that takes it. `None`: no rule does.
    #[inline(always)]
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Option<Decision> {
        self.decide_reading(flow.family, flow.local_port, || *flow).map(|(decision, _)| decision)
    }

    /// The same, where the rest of the flow is read only if its family and the port of its destination do not suffice.
    #[inline(always)]
    #[must_use]
    pub fn decide_reading(
        &self,
        family: u32,
        local_port: u32,
        read: impl FnOnce() -> Flow,
    ) -> Option<(Decision, Flow)> {
        let table = if family == FAMILY_IPV6 { head::TABLES + table::WORDS } else { head::TABLES };
        let ports = self.at(table + table::PORTS);
        if ports == 0 {
            return None;
        }
        let page = self.at(ports + (local_port >> 8 & 0xff));
        let class = self.half_at(page, local_port & 0xff);
        if class == 0 {
            return None;
        }
        let flow = &read();
        let class = self.at(table + table::CLASSES) + class * class::WORDS;
        let mut best = self.at(class + class::LEAF);
        let mut rank = self.rank(best);
        if self.at(class + class::DESTINATION_RANK) < rank {
            let found = self.by_destination(table, flow);
            let its = self.rank(found);
            if its < rank {
                best = found;
                rank = its;
            }
        }
        if self.at(class + class::SOURCE_RANK) < rank {
            let symbol = self.symbol(table + table::SOURCES, flow.family, flow.remote_address);
            let lists = self.at(table + table::SOURCES + prefixes::LISTS);
            let rest = self.in_ports(self.at(lists + symbol), flow.local_port);
            let found = if rest == 0 { 0 } else { self.at(self.rest(rest) + rest::LEAF) };
            if self.rank(found) < rank {
                best = found;
            }
        }
        if best == 0 {
            return None;
        }
        // Without the black box LLVM moves the loads to where the fields are used, and with them the index (see
        // `Decision`).
        let decision = Decision::unpacked(self.at(best + leaf::RULE), self.at(best + leaf::PACKED));
        Some((core::hint::black_box(decision), *flow))
    }

    #[inline(always)]
    fn rank(&self, leaf: u32) -> u32 {
        if leaf == 0 { NO_RANK } else { self.at(leaf + leaf::RANK) }
    }

    /// The leaf of the first rule that names this destination, or exceptions among destinations.
    #[inline(always)]
    fn by_destination(&self, table: u32, flow: &Flow) -> u32 {
        let destinations = table + table::DESTINATIONS;
        let symbol = self.symbol(destinations, flow.family, flow.local_address);
        let lists = self.at(destinations + prefixes::LISTS);
        let number = self.in_ports(self.at(lists + symbol), flow.local_port);
        if number == 0 {
            return 0;
        }
        let rest = self.rest(number);
        if self.at(rest + rest::HAS_PAIRS) != 0 {
            let symbol = self.symbol(table + table::SOURCES, flow.family, flow.remote_address);
            let mixed = Mixed::pair(self.seed(), number, symbol);
            let pair = self.slot(head::PAIRS, mixed, pair::WORDS);
            if self.at(pair + pair::KEY) == number << 16 | symbol {
                return self.at(pair + pair::LEAF);
            }
        }
        self.at(rest + rest::LEAF)
    }

    #[inline(always)]
    fn rest(&self, number: u32) -> u32 {
        self.at(head::RESTS) + number * rest::WORDS
    }

    /// Where a key of a table is, if it is there.
    #[inline(always)]
    fn slot(&self, hashed: u32, mixed: Mixed, words: u32) -> u32 {
        let bucket = mixed.bucket(self.at(hashed + hashed::BUCKET_MASK));
        let displacement = self.at(self.at(hashed + hashed::DISPLACEMENTS) + bucket);
        self.at(hashed + hashed::SLOTS) + mixed.slot(displacement, self.at(hashed + hashed::LENGTH)) * words
    }

    /// The symbol of the longest prefix that this address lies in; 0 without any.
    #[inline(always)]
    fn symbol(&self, prefixes: u32, family: u32, address: [u32; 4]) -> u32 {
        if family == FAMILY_IPV4 {
            self.symbol_of::<1>(prefixes, address, STEPS_IPV4)
        } else {
            self.symbol_of::<4>(prefixes, address, STEPS_IPV6)
        }
    }

    #[inline(always)]
    fn symbol_of<const W: usize>(&self, prefixes: u32, address: [u32; 4], steps: u32) -> u32 {
        let seed = self.seed();
        let mut search = self.at(prefixes + prefixes::SEARCH);
        let mut best = 0;
        let mut step = 0;
        while step < steps && search != 0 {
            let length = self.at(search + step::LENGTH);
            let mut key = [0; 4];
            let mut word = 0;
            while word < W {
                key[word] = address[word] & self.at(search + step::MASK + word as u32);
                word += 1;
            }
            let mixed = Mixed::prefix::<W>(seed, key, length);
            let slot = self.slot(prefixes + prefixes::ENTRIES, mixed, W as u32 + entry::WORDS);
            let found = slot + W as u32;
            let mut different = self.at(found + entry::LENGTH) ^ length;
            let mut word = 0;
            while word < W {
                different |= self.at(slot + word as u32) ^ key[word];
                word += 1;
            }
            if different == 0 {
                best = self.at(found + entry::SYMBOL);
                search = self.at(found + entry::LONGER);
            } else {
                search = self.at(search + step::SHORTER);
            }
            step += 1;
        }
        best
    }

    /// The number of the rest of the range that a port lies in.
    #[inline(always)]
    fn in_ports(&self, list: u32, port: u32) -> u32 {
        if list == 0 {
            return 0;
        }
        let mut range = list + ports::RANGES;
        let mut length = self.at(list + ports::LENGTH);
        let mut step = 0;
        while step < ports::STEPS && length > 1 {
            let half = length >> 1;
            if self.at(range + half) >> 16 <= port {
                range += half;
            }
            length -= half;
            step += 1;
        }
        self.at(range) & 0xffff
    }
}
