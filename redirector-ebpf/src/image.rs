//! A compiled rule set: words, and where in them what is.
//!
//! The rules of a namespace, compiled so that a decision costs the same however many there are. An image has a table
//! for each protocol and address family, and, where rules name interfaces, one more for each of those. In a table each packet
//! takes this way:
//!
//! 1. Its port leads to a *class*: what is the same for all ports that the same rules name. Class 0: no rule does, whatever the
//!    interface, and that is the end for most packets that nobody asked for. Else, where rules name the packet's interface, it
//!    begins again in that one's table.
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
//! Words are 32 bits. "At" is an index of a word in the image.

/// An image has so many words at least.
pub const LEAST: usize = 1 << 9;

/// An image of at most so many words has narrow [`pages`]: a program knows how long its images are.
pub const NARROW: usize = 1 << 11;

/// An image has so many words at most: what a map's value can have on Linux 5.10 (`KMALLOC_MAX_SIZE`, kernel/bpf/arraymap.c).
pub const MOST: usize = 1 << 20;

/// The head of an image.
pub mod head {
    /// How many words are in use.
    pub const LENGTH: u32 = 0;
    /// Of every hash in the image.
    pub const SEED: u32 = 1;
    /// What is looked at: see [`super::looks`].
    pub const LOOKS: u32 = 2;
    /// At the [`super::rest`]s.
    pub const RESTS: u32 = 3;
    /// A [`super::hashed`] table of [`super::pair`]s.
    pub const PAIRS: u32 = 4;
    /// The [`super::leaf`] that no rule is, behind all others: wherever there is no rule, this is what is found.
    pub const NOTHING: u32 = PAIRS + super::hashed::WORDS;
    /// The [`super::table`]s: see [`table`].
    pub const TABLES: u32 = NOTHING + super::leaf::WORDS;
    /// Words of the head.
    pub const WORDS: u32 = TABLES + 4 * super::table::WORDS;

    /// The table for packets of a kind whose interface no rule names.
    #[inline(always)]
    #[must_use]
    pub const fn table(kind: crate::Kind) -> u32 {
        TABLES + kind.number() * super::table::WORDS
    }
}

/// What some packet is looked at for: bits. A program is loaded for those of its rule set, as a constant, and the verifier walks
/// nothing of the others.
pub mod looks {
    /// Some table has [`super::prefixes`] of destinations of IPv4.
    pub const IPV4_DESTINATIONS: u32 = 1 << 0;
    /// Of IPv6.
    pub const IPV6_DESTINATIONS: u32 = 1 << 1;
    /// Some table has prefixes of sources of IPv4.
    pub const IPV4_SOURCES: u32 = 1 << 2;
    /// Of IPv6.
    pub const IPV6_SOURCES: u32 = 1 << 3;
    /// Some [`super::rest`] has pairs.
    pub const PAIRS: u32 = 1 << 4;
    /// Some table has [`super::interfaces`].
    pub const INTERFACES: u32 = 1 << 5;
    /// All there are.
    pub const ALL: u32 = (1 << 6) - 1;
}

/// The table of one protocol and family, relative to its begin.
pub mod table {
    /// At the [`super::pages`].
    pub const PORTS: u32 = 0;
    /// At the [`super::class`]es.
    pub const CLASSES: u32 = 1;
    /// The [`super::prefixes`] of destinations.
    pub const DESTINATIONS: u32 = 2;
    /// The [`super::prefixes`] of sources.
    pub const SOURCES: u32 = DESTINATIONS + super::prefixes::WORDS;
    /// At the [`super::interfaces`] that rules name, nothing without any. The ports of those rules have a class here too.
    pub const INTERFACES: u32 = SOURCES + super::prefixes::WORDS;
    /// Words of a table's head.
    pub const WORDS: u32 = INTERFACES + 1;
}

/// The classes of ports, in pages of 64 ports. First, for each page of all ports, the number of its page here; then these
/// pages. All of it in halves of words, the lower one first; in a [`NARROW`] image in quarters.
pub mod pages {
    /// A port's page is this many bits less of it.
    pub const BITS: u32 = 6;
    /// In a page.
    pub const PORTS: u32 = 1 << BITS;
    /// Pages of all ports.
    pub const ALL: u32 = 1 << (16 - BITS);
}

/// Interfaces: how many, then of each two words.
pub mod interfaces {
    /// How many.
    pub const LENGTH: u32 = 0;
    /// The first.
    pub const FIRST: u32 = 1;
    /// The index of an interface, relative to its words.
    pub const INDEX: u32 = 0;
    /// At its table.
    pub const TABLE: u32 = 1;
    /// Words of an interface.
    pub const WORDS: u32 = 2;
    /// How many there can be.
    pub const MAX: u32 = 16;
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

/// A rest: what is left to look at behind address and port. Rest 0 has the leaf that no rule is.
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
pub const NO_RANK: u32 = u32::MAX >> 1;

/// The most steps of a search: lengths 1 to 32.
pub const STEPS_IPV4: u32 = 6;
/// Lengths 1 to 128.
pub const STEPS_IPV6: u32 = 8;

/// A key of a [`hashed`] table, mixed. Two keys of IPv4, or two pairs, are never mixed to the same; two of IPv6 hardly ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mixed(u64);

impl Mixed {
    // Those of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
    const FACTOR: u64 = 0xbf58_476d_1ce4_e5b9;
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Of two numbers.
    #[inline(always)]
    #[must_use]
    pub const fn pair(seed: u32, low: u32, high: u32) -> Self {
        Self::of(seed as u64, low, high)
    }

    #[inline(always)]
    const fn of(begin: u64, low: u32, high: u32) -> Self {
        let mixed = ((low as u64 | (high as u64) << 32) ^ begin).wrapping_mul(Self::FACTOR);
        Self(mixed ^ mixed >> 32)
    }

    /// Of an address of as many words, with a prefix length.
    #[inline(always)]
    #[must_use]
    pub const fn prefix<const WORDS: usize>(seed: u32, address: [u32; 4], length: u32) -> Self {
        let [a, b, c, d] = address;
        if WORDS == 1 {
            return Self::pair(seed, a, length);
        }
        let begin = (seed as u64).wrapping_add((length as u64).wrapping_mul(Self::STEP));
        let begin = ((a as u64 | (b as u64) << 32) ^ begin).wrapping_mul(Self::FACTOR);
        Self::of(begin ^ begin >> 32, c, d)
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
