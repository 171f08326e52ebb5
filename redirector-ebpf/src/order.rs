//! The total order of cells: which one decides when several match.

use core::cmp::Ordering;

/// What the order looks at, of one cell. The lesser comes first and decides.
///
/// In this order: the longer destination prefix; fewer ports in the match that the cell comes from; the rule's
/// name in byte order. Prefixes of different families are compared by length too, which decides nothing: no
/// packet matches both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precedence<'a> {
    /// 0 to 128; 0 without an address.
    pub destination_prefix_length: u8,
    /// 1 to 65,535.
    pub ports: u32,
    /// Unique in a namespace.
    pub rule_name: &'a [u8],
}

impl Ord for Precedence<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let Self { destination_prefix_length, ports, rule_name } = self;
        (other.destination_prefix_length.cmp(destination_prefix_length))
            .then(ports.cmp(&other.ports))
            .then(rule_name.cmp(&other.rule_name))
    }
}

impl PartialOrd for Precedence<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
