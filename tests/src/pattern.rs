//! A long stream of bytes that both ends know, so that each byte is compared and none is stored.

use std::io::{self, ErrorKind, Read, Write};

/// Not a multiple of any buffer's length: a piece that is lost, doubled or moved is noticed.
const PERIOD: usize = 1_000_003;

/// The longest piece that is written: less than the buffers of a path hold, so that progress is seen.
const WRITE: usize = 64 * 1024;

/// A stream of bytes. The same seed makes the same one.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<u8>);

impl Pattern {
    /// The stream with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        Self((0..PERIOD).map(|_| random.next().to_le_bytes()[3]).collect())
    }

    /// Writes its first `length` bytes, and tells `wrote` how many there are each time.
    ///
    /// # Errors
    ///
    /// As write(2).
    pub fn send(&self, mut to: impl Write, length: u64, mut wrote: impl FnMut(usize)) -> io::Result<()> {
        let mut sent = 0;
        while sent < length {
            let piece = self.piece(sent, length);
            let written = to.write(&piece[..piece.len().min(WRITE)])?;
            sent += written as u64;
            wrote(written);
        }
        Ok(())
    }

    /// Reads its first `length` bytes.
    ///
    /// # Errors
    ///
    /// As read(2); `InvalidData` at the first byte that differs, `UnexpectedEof` at an early end.
    pub fn receive(&self, mut from: impl Read, length: u64) -> io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        let mut received = 0;
        while received < length {
            let expected = self.piece(received, length);
            let room = expected.len().min(buffer.len());
            let read = from.read(&mut buffer[..room])?;
            if read == 0 {
                let text = format!("the end after {received} bytes of {length}");
                return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
            }
            if buffer[..read] != expected[..read] {
                let text = format!("other bytes between {received} and {}", received + read as u64);
                return Err(io::Error::new(ErrorKind::InvalidData, text));
            }
            received += read as u64;
        }
        Ok(())
    }

    /// What follows after `position` bytes, as far as it is in one piece.
    fn piece(&self, position: u64, length: u64) -> &[u8] {
        let begin = usize::try_from(position % PERIOD as u64).expect("less than the period");
        let left = usize::try_from(length - position).unwrap_or(usize::MAX);
        let piece = &self.0[begin..];
        &piece[..piece.len().min(left)]
    }
}

/// Numbers that look random and are the same each time: xorshift64*, by G. Marsaglia and S. Vigna.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The sequence with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "it has no end, and nobody iterates over it")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// One of the numbers below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("fits");
        usize::try_from((self.next() >> 11) % end).expect("less than `end`")
    }

    /// One of these.
    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}
