//! What is left to look at behind address and port.

use std::collections::HashMap;

use redirector_ebpf::image::{MOST, Mixed, head, pair, rest};

use super::{CompileError, hashed, image::Builder};

/// What may be looked at while rules are compiled, which takes a second or two: cells, symbols, port ranges.
const WORK: usize = 30_000_000;

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
        let mut nothing = [0; rest::WORDS as usize];
        nothing[rest::LEAF as usize] = head::NOTHING;
        Self { words: nothing.to_vec(), plain: HashMap::new(), pairs: Vec::new(), work: 0 }
    }

    pub(super) fn work(&mut self, more: usize) -> Result<(), CompileError> {
        self.work += more;
        if self.work > WORK { Err(CompileError::TooMuchWork) } else { Ok(()) }
    }

    /// A new one; gives its number.
    pub(super) fn add(&mut self, leaf: u32, has_pairs: bool) -> Result<u32, CompileError> {
        let number = half(self.words.len() / rest::WORDS as usize)?;
        let mut words = [0; rest::WORDS as usize];
        words[rest::LEAF as usize] = leaf;
        words[rest::HAS_PAIRS as usize] = has_pairs.into();
        self.words.extend(words);
        Ok(number)
    }

    /// One that is a leaf and nothing more.
    pub(super) fn plain(&mut self, leaf: u32) -> Result<u32, CompileError> {
        if let Some(number) = self.plain.get(&leaf) {
            return Ok(*number);
        }
        let number = self.add(leaf, false)?;
        self.plain.insert(leaf, number);
        Ok(number)
    }

    pub(super) fn pair(
        &mut self,
        seed: u32,
        number: u32,
        symbol: usize,
        leaf: u32,
    ) -> Result<(), CompileError> {
        if self.pairs.len() * pair::WORDS as usize >= MOST {
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
