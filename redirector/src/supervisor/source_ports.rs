//! Source ports of connections to an address from that same address.
//!
//! The kernel would take them from the namespace's `ip_local_port_range`, one for each connection and, where we
//! close first, for a minute after its end; and what is bound there cannot be used by connect(2) of the
//! applications any more. So they come from outside of that range, where only servers bind ports.

use std::sync::atomic::{AtomicU32, Ordering};

/// Below are the ports of most servers.
const LOWEST: u16 = 10_000;

/// Ports tried for one connection.
const TRIED: u32 = 64;

/// The ports from [`LOWEST`] up that are outside of a namespace's `ip_local_port_range`.
#[derive(Debug)]
pub(super) struct SourcePorts {
    ranges: Vec<(u16, u16)>,
    count: u32,
    next: AtomicU32,
}

impl SourcePorts {
    /// Of a namespace with this range, both ends included.
    pub(super) fn outside((low, high): (u16, u16)) -> Self {
        let below = (LOWEST < low).then(|| (LOWEST, low - 1));
        let above = (high < u16::MAX).then(|| (high.max(LOWEST - 1) + 1, u16::MAX));
        let ranges: Vec<_> = below.into_iter().chain(above).collect();
        let count = ranges.iter().map(|(first, last)| u32::from(*last) - u32::from(*first) + 1).sum();
        Self { ranges, count, next: AtomicU32::new(0) }
    }

    /// Ports to try for a connection to a port: never that port itself, for a socket that connects to its own
    /// address and port meets itself. One after the other, so that a port rests for as long as possible. 0, the
    /// kernel's choice, where the range leaves none.
    pub(super) fn candidates(&self, to: u16) -> impl Iterator<Item = u16> {
        let tried = if self.count == 0 { 1 } else { TRIED };
        (0..tried).map(|_| self.take()).filter(move |port| *port != to)
    }

    fn take(&self) -> u16 {
        if self.count == 0 {
            return 0;
        }
        let mut offset = self.next.fetch_add(1, Ordering::Relaxed) % self.count;
        for (first, last) in &self.ranges {
            let length = u32::from(*last) - u32::from(*first) + 1;
            if offset < length {
                return first + u16::try_from(offset).expect("less than a range of ports");
            }
            offset -= length;
        }
        unreachable!("the offset is below the sum of the lengths")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_outside_of_the_range_and_come_in_turn() {
        let ports = SourcePorts::outside((32_768, 60_999));
        assert_eq!(ports.ranges, [(10_000, 32_767), (61_000, 65_535)]);
        assert_eq!(ports.candidates(10_001).take(2).collect::<Vec<_>>(), [10_000, 10_002]);
        assert_eq!(SourcePorts::outside((1024, 65_535)).candidates(80).collect::<Vec<_>>(), [0]);
        assert_eq!(SourcePorts::outside((1024, 2048)).ranges, [(10_000, 65_535)]);
        let one = SourcePorts::outside((10_001, 65_535));
        assert_eq!(one.candidates(80).next(), Some(10_000));
        assert_eq!(one.candidates(10_000).next(), None);
    }
}
