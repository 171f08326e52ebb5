//! How an image is read: the one matching rule.

use crate::{
    Decision, Flow, Kind, Packet,
    image::{
        Mixed, NO_RANK, STEPS_IPV4, STEPS_IPV6, class, entry, hashed, head, interfaces, leaf, looks, pages,
        pair, ports, prefixes, rest, step, table,
    },
};

/// 1 if one number is less than another, else 0; neither of them is above [`NO_RANK`].
#[inline(always)]
const fn less(one: u32, other: u32) -> u32 {
    one.wrapping_sub(other) >> 31
}

/// Whether one number is less than another, neither of them above [`NO_RANK`]. From a comparison the verifier would learn about
/// both, and walk what follows again for each thing that he may know.
#[inline(always)]
const fn precedes(one: u32, other: u32) -> bool {
    less(one, other) != 0
}

/// The first rule that takes the packet, as far as was looked.
struct Best {
    leaf: u32,
    rank: u32,
}

/// The words of an image, of which there are a power of 2.
pub trait Words {
    /// A word. What is behind the last one is some other word: an image that was compiled never asks for it, but the verifier
    /// does not know.
    fn at(&self, index: u32) -> u32;

    /// Whether there are [`crate::image::NARROW`] words at most.
    fn is_narrow(&self) -> bool;

    /// Whether some packet is looked at for one of these ([`looks`]). Where the answer is no, the image does not lead there; the
    /// kernel program may say yes for nothing, since it may have been loaded for a rule set before.
    fn looks_at(&self, looks: u32) -> bool;

    /// A word of the [`head`], which every image has.
    fn head(&self, index: u32) -> u32;

    /// An index as [`Self::at`] takes it: the same for an image that was compiled, and to the verifier a number that is as good
    /// as any.
    fn wrap(&self, index: u32) -> u32;
}

/// An image, as kernel and relay look at it.
#[derive(Clone, Copy, Debug)]
pub struct Image<W>(pub W);

impl<W: Words> Image<W> {
    #[inline(always)]
    fn at(&self, index: u32) -> u32 {
        self.0.at(index)
    }

    /// One of `2^BITS` parts in each word.
    #[inline(always)]
    fn part_at<const BITS: u32>(&self, begin: u32, index: u32) -> u32 {
        let width = 32 >> BITS;
        self.at(begin + (index >> BITS)) >> ((index & ((1 << BITS) - 1)) * width) & ((1 << width) - 1)
    }

    #[inline(always)]
    fn class_of<const BITS: u32>(&self, ports: u32, port: u32) -> u32 {
        let page = self.part_at::<BITS>(ports, port >> pages::BITS);
        let pages = ports + (pages::ALL >> BITS);
        self.part_at::<BITS>(pages + page * (pages::PORTS >> BITS), port & (pages::PORTS - 1))
    }

    #[inline(always)]
    fn seed(&self) -> u32 {
        self.0.head(head::SEED)
    }

    /// What is decided about a flow: by the first rule in the order that takes it. `None`: no rule does.
    #[inline(always)]
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Option<Decision> {
        self.decide_about(flow.kind(), flow.local_port, flow)
    }

    /// The same of a packet of this kind to this port.
    #[inline(always)]
    #[must_use]
    pub fn decide_about(&self, kind: Kind, local_port: u32, packet: &impl Packet) -> Option<Decision> {
        let mut table = self.0.wrap(head::table(kind));
        let mut class = self.class(table, local_port);
        if class == 0 {
            return None;
        }
        if self.0.looks_at(looks::INTERFACES) {
            // Calculated, or the verifier would walk all that follows for this table and for that of an interface.
            let its = self.of_interface(self.at(table + table::INTERFACES), packet.ingress_ifindex());
            table = self.0.wrap(table ^ (table ^ its) & less(0, its).wrapping_neg());
            class = self.class(table, local_port);
        }
        let class = self.at(table + table::CLASSES) + class * class::WORDS;
        let mut best = self.ranked(self.at(class + class::LEAF));
        let mut pairs_of = self.nothing() & 0xffff;
        if self.0.looks_at(looks::IPV4_DESTINATIONS | looks::IPV6_DESTINATIONS)
            && precedes(self.at(class + class::DESTINATION_RANK), best.rank)
        {
            let destinations = table + table::DESTINATIONS;
            let symbol = if self.is_ipv6(kind, looks::IPV4_DESTINATIONS, looks::IPV6_DESTINATIONS) {
                self.symbol::<4>(destinations, packet.local_address(), STEPS_IPV6)
            } else {
                self.symbol::<1>(destinations, [packet.local_first(), 0, 0, 0], STEPS_IPV4)
            };
            let number = self.in_ports(destinations, symbol, local_port);
            if self.0.looks_at(looks::PAIRS) && self.at(self.rest(number) + rest::HAS_PAIRS) != 0 {
                pairs_of = number;
            } else {
                self.improve(&mut best, self.at(self.rest(number) + rest::LEAF));
            }
        }
        let source_rank = self.at(class + class::SOURCE_RANK);
        if self.0.looks_at(looks::IPV4_SOURCES | looks::IPV6_SOURCES)
            && (self.0.looks_at(looks::PAIRS) && pairs_of != 0 || precedes(source_rank, best.rank))
        {
            let sources = table + table::SOURCES;
            let symbol = if self.is_ipv6(kind, looks::IPV4_SOURCES, looks::IPV6_SOURCES) {
                self.symbol::<4>(sources, packet.remote_address(), STEPS_IPV6)
            } else {
                self.symbol::<1>(sources, [packet.remote_first(), 0, 0, 0], STEPS_IPV4)
            };
            if self.0.looks_at(looks::PAIRS) && pairs_of != 0 {
                self.improve(&mut best, self.of_pair(pairs_of, symbol));
            }
            if precedes(source_rank, best.rank) {
                let number = self.in_ports(sources, symbol, local_port);
                self.improve(&mut best, self.at(self.rest(number) + rest::LEAF));
            }
        }
        if best.rank == NO_RANK {
            return None;
        }
        // Without the black box LLVM moves the loads to where the fields are used, and with them the index (see
        // `Decision`).
        let found = (self.at(best.leaf + leaf::RULE), self.at(best.leaf + leaf::PACKED));
        let (rule, packed) = core::hint::black_box(found);
        Some(Decision::unpacked(rule, packed))
    }

    /// Whether the packet is of IPv6, where its address is looked at: of which family that happens at all is known before.
    #[inline(always)]
    fn is_ipv6(&self, kind: Kind, ipv4: u32, ipv6: u32) -> bool {
        self.0.looks_at(ipv6) && (!self.0.looks_at(ipv4) || kind.is_ipv6())
    }

    /// Zero. The verifier does not know, so that what begins with it is to him as what comes of it: he looks the fewer times at
    /// what follows.
    #[inline(always)]
    fn nothing(&self) -> u32 {
        self.0.head(head::NOTHING + leaf::RULE)
    }

    #[inline(always)]
    fn ranked(&self, leaf: u32) -> Best {
        Best { leaf, rank: self.at(leaf + leaf::RANK) }
    }

    /// Takes a leaf if it comes before the best so far.
    #[inline(always)]
    fn improve(&self, best: &mut Best, leaf: u32) {
        let other = self.ranked(leaf);
        if precedes(other.rank, best.rank) {
            *best = other;
        }
    }

    /// The leaf of a rest that has pairs, for a source.
    #[inline(always)]
    fn of_pair(&self, number: u32, symbol: u32) -> u32 {
        let mixed = Mixed::pair(self.seed(), number, symbol);
        let pair = self.slot(head::PAIRS, mixed, pair::WORDS);
        if self.at(pair + pair::KEY) == number << 16 | symbol {
            self.at(pair + pair::LEAF)
        } else {
            self.at(self.rest(number) + rest::LEAF)
        }
    }

    /// The number of a port's class.
    #[inline(always)]
    fn class(&self, table: u32, port: u32) -> u32 {
        let ports = self.at(table + table::PORTS);
        if ports == 0 {
            return 0;
        }
        if self.0.is_narrow() { self.class_of::<2>(ports, port) } else { self.class_of::<1>(ports, port) }
    }

    /// The table of an interface; nothing when no rule names it, or `interfaces` is nothing.
    #[inline(always)]
    fn of_interface(&self, interfaces: u32, index: u32) -> u32 {
        let length = self.at(interfaces + interfaces::LENGTH) * less(0, interfaces);
        let mut interface = interfaces + interfaces::FIRST;
        let mut number = 0;
        while number < interfaces::MAX && number < length {
            if self.at(interface + interfaces::INDEX) == index {
                return self.at(interface + interfaces::TABLE);
            }
            interface += interfaces::WORDS;
            number += 1;
        }
        self.nothing()
    }

    #[inline(always)]
    fn rest(&self, number: u32) -> u32 {
        self.0.head(head::RESTS) + number * rest::WORDS
    }

    /// Where a key of a table is, if it is there.
    #[inline(always)]
    fn slot(&self, hashed: u32, mixed: Mixed, words: u32) -> u32 {
        let bucket = mixed.bucket(self.at(hashed + hashed::BUCKET_MASK));
        let displacement = self.at(self.at(hashed + hashed::DISPLACEMENTS) + bucket);
        self.at(hashed + hashed::SLOTS) + mixed.slot(displacement, self.at(hashed + hashed::LENGTH)) * words
    }

    /// The symbol of the longest prefix that this address of `N` words lies in; 0 without any.
    #[inline(always)]
    fn symbol<const N: usize>(&self, prefixes: u32, address: [u32; 4], steps: u32) -> u32 {
        let seed = self.seed();
        let mut search = self.at(prefixes + prefixes::SEARCH);
        let mut best = self.nothing();
        let mut step = 0;
        while step < steps && search != 0 {
            let length = self.at(search + step::LENGTH);
            let mut key = [0; 4];
            let mut word = 0;
            while word < N {
                key[word] = address[word] & self.at(search + step::MASK + word as u32);
                word += 1;
            }
            let mixed = Mixed::prefix::<N>(seed, key, length);
            let slot = self.slot(prefixes + prefixes::ENTRIES, mixed, N as u32 + entry::WORDS);
            let found = slot + N as u32;
            let mut different = self.at(found + entry::LENGTH) ^ length;
            let mut word = 0;
            while word < N {
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

    /// The number of the rest of the range that a port lies in, of those of a symbol.
    #[inline(always)]
    fn in_ports(&self, prefixes: u32, symbol: u32, port: u32) -> u32 {
        let list = self.at(self.at(prefixes + prefixes::LISTS) + symbol);
        let mut range = self.0.wrap(list + ports::RANGES);
        let mut length = self.at(list + ports::LENGTH);
        let mut step = 0;
        while step < ports::STEPS && length > 1 {
            let half = length >> 1;
            if !precedes(port, self.at(range + half) >> 16) {
                range = self.0.wrap(range + half);
            }
            length -= half;
            step += 1;
        }
        self.at(range) & 0xffff
    }
}
