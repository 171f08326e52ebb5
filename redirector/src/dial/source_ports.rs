//! Source ports of connections to an address from that same address.
//!
//! The kernel would take them from the namespace's `ip_local_port_range`, one for each connection and, where we
//! close first, for a minute after its end; and what is bound there cannot be used by connect(2) of the
//! applications any more. So they come from outside of that range, where only servers bind ports. Any process of the
//! namespace can hold all of those. Then the kernel chooses after all, but leaves applications some.

use std::{
    iter,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// Below are the ports of most servers.
const LOWEST: u16 = 10_000;

/// Ports tried for one connection.
const TRIED: u32 = 64;

/// Ports of the kernel's choice tried after them: somebody else may take one before we do.
const TRIED_OF_KERNEL: usize = 4;

/// The kernel is not asked again for so long after it found none: it looks at each port, which takes milliseconds.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that ends can keep its port for so long: TIME_WAIT.
const MINUTE: Duration = Duration::from_secs(60);

/// A port to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Candidate {
    /// This one.
    Port(u16),
    /// Any that is free.
    OfKernel,
}

/// The ports from [`LOWEST`] up that are outside of a namespace's `ip_local_port_range`.
#[derive(Debug)]
pub(crate) struct SourcePorts {
    ranges: Vec<(u16, u16)>,
    count: u32,
    /// From a port that is in use to the next one that is tried. It has no divisor in common with the count.
    stride: u32,
    next: AtomicU32,
    of_kernel: Mutex<Chosen>,
}

/// What was taken of the namespace's range.
#[derive(Debug)]
struct Chosen {
    /// When the kernel last found no port.
    had_none: Option<Instant>,
    /// When `taken` was 0.
    since: Instant,
    taken: u32,
    /// So many can be taken in a minute.
    most: u32,
}

impl SourcePorts {
    /// Of a namespace with this range, both ends included.
    pub(crate) fn outside((low, high): (u16, u16)) -> Self {
        let below = (LOWEST < low).then(|| (LOWEST, low - 1));
        let above = (high < u16::MAX).then(|| (high.max(LOWEST - 1) + 1, u16::MAX));
        let ranges: Vec<_> = below.into_iter().chain(above).collect();
        let count = ranges.iter().map(|(first, last)| u32::from(*last) - u32::from(*first) + 1).sum();
        // Half of the range, where there is any other.
        let most = if count == 0 { u32::MAX } else { u32::from(high.saturating_sub(low)) / 2 + 1 };
        let of_kernel = Chosen { had_none: None, since: Instant::now(), taken: 0, most };
        let (next, of_kernel) = (AtomicU32::new(0), Mutex::new(of_kernel));
        Self { ranges, count, stride: stride(count), next, of_kernel }
    }

    /// Ports to try for a connection to a port: never that port itself, for a socket that connects to its own
    /// address and port meets itself. Connections take one after the other, so that a port rests for as long as possible;
    /// where one is in use, those beside it are likely to be in use too, by connections that were made with it and are as
    /// old, so the next that is tried is far away. The kernel's choice comes last.
    pub(super) fn candidates(&self, to: u16) -> impl Iterator<Item = Candidate> {
        let begin = self.next.fetch_add(1, Ordering::Relaxed);
        let tried = (0..TRIED.min(self.count)).map(move |number| self.port(begin, number));
        let own = tried.filter(move |port| *port != to);
        // Asked only when the own ones have been tried.
        let of_kernel =
            iter::repeat_n(Candidate::OfKernel, TRIED_OF_KERNEL).take_while(|_| self.of_kernel().may_take());
        own.map(Candidate::Port).chain(of_kernel)
    }

    /// The kernel has found no port.
    pub(super) fn kernel_has_none(&self) {
        self.of_kernel().had_none = Some(Instant::now());
    }

    fn of_kernel(&self) -> MutexGuard<'_, Chosen> {
        self.of_kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port that a connection tries when it has tried so many.
    fn port(&self, begin: u32, number: u32) -> u16 {
        let mut offset = (begin % self.count + number * self.stride % self.count) % self.count;
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

/// Some 0.6 of a count, which spreads multiples of it best (Knuth: "The Art of Computer Programming" volume 3, section 6.4).
fn stride(count: u32) -> u32 {
    let begin = (count / 8 * 5).max(1);
    (begin..=begin + count).find(|stride| divisor(*stride, count) == 1).unwrap_or(1)
}

/// The greatest one that both have.
fn divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { divisor(other, one % other) }
}

impl Chosen {
    /// Whether the kernel can be asked for one more port, which then counts as taken.
    fn may_take(&mut self) -> bool {
        if self.since.elapsed() > MINUTE {
            (self.since, self.taken) = (Instant::now(), 0);
        }
        let may = self.had_none.is_none_or(|then| then.elapsed() > PAUSE) && self.taken < self.most;
        self.taken = self.taken.saturating_add(may.into());
        may
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Candidate::{OfKernel, Port},
        *,
    };

    #[test]
    fn ports_are_outside_of_the_range_and_come_in_turn() {
        let ports = SourcePorts::outside((32_768, 60_999));
        assert_eq!(ports.ranges, [(10_000, 32_767), (61_000, 65_535)]);
        let firsts: Vec<_> = (0..3).filter_map(|_| ports.candidates(80).next()).collect();
        assert_eq!(firsts, [Port(10_000), Port(10_001), Port(10_002)]);
        assert!(ports.candidates(10_003).all(|one| one != Port(10_003)));
        assert_eq!(SourcePorts::outside((1024, 2048)).ranges, [(10_000, 65_535)]);
        let one = SourcePorts::outside((10_001, 65_535));
        assert_eq!(one.candidates(80).collect::<Vec<_>>()[..2], [Port(10_000), OfKernel]);
        assert_eq!(one.candidates(10_000).next(), Some(OfKernel));
    }

    #[test]
    fn a_run_of_ports_in_use_is_left_at_once() {
        let ports = SourcePorts::outside((32_768, 60_999));
        // Of connections that stay, when all ports have been taken once.
        let in_use = |one: &Candidate| matches!(one, Port(port) if (12_000..14_000).contains(port));
        for _ in 0..30_000 {
            let tried = ports.candidates(80).take_while(in_use).count();
            assert!(tried < 4, "{tried}");
        }
    }

    #[test]
    fn every_port_is_tried_once_before_one_is_tried_again() {
        for (low, high) in
            [(10_001, 65_535), (10_002, 65_535), (10_007, 65_535), (10_060, 65_535), (10_064, 65_535)]
        {
            let ports = SourcePorts::outside((low, high));
            let own = ports.candidates(80).filter(|one| *one != OfKernel);
            let own: std::collections::HashSet<_> = own.map(|one| format!("{one:?}")).collect();
            assert_eq!(own.len(), usize::from(low - 10_000));
        }
    }

    #[test]
    fn the_kernel_chooses_where_no_port_is_left_but_is_not_asked_again_and_again() {
        let none = SourcePorts::outside((1024, 65_535));
        assert_eq!(none.candidates(80).collect::<Vec<_>>(), [OfKernel; TRIED_OF_KERNEL]);
        let many = SourcePorts::outside((32_768, 60_999));
        let candidates: Vec<_> = many.candidates(80).collect();
        assert_eq!(candidates.len(), TRIED as usize + TRIED_OF_KERNEL);
        assert_eq!(candidates[TRIED as usize..], [OfKernel; TRIED_OF_KERNEL]);
        none.kernel_has_none();
        assert_eq!(none.candidates(80).next(), None);
        none.of_kernel().had_none = Instant::now().checked_sub(2 * PAUSE);
        assert_eq!(none.candidates(80).next(), Some(OfKernel));
    }

    #[test]
    fn half_of_the_range_is_left_to_applications() {
        let ports = SourcePorts::outside((40_000, 40_099));
        let taken = || ports.candidates(80).filter(|one| *one == OfKernel).count();
        let all: usize = (0..100).map(|_| taken()).sum();
        assert_eq!(all, 50);
        ports.of_kernel().since -= 2 * MINUTE;
        assert_eq!(taken(), TRIED_OF_KERNEL);
    }
}
