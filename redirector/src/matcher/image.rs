//! The words of an image, and how they are put together.

use std::{collections::HashMap, fmt};

use redirector_ebpf::{
    self as abi, Decision, Flow,
    image::{LEAST, MOST, NARROW, NO_RANK, head, leaf},
};

use super::CompileError;

/// A compiled rule set: as many words as the least power of 2 that suffices.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Image(Box<[u32]>);

struct Words<'a>(&'a [u32]);

impl abi::Words for Words<'_> {
    fn at(&self, index: u32) -> u32 {
        self.0[index as usize & (self.0.len() - 1)]
    }

    fn head(&self, index: u32) -> u32 {
        self.0[index as usize]
    }

    fn is_narrow(&self) -> bool {
        self.0.len() <= NARROW
    }

    fn looks_at(&self, looks: u32) -> bool {
        self.0[head::LOOKS as usize] & looks != 0
    }

    fn wrap(&self, index: u32) -> u32 {
        index
    }
}

impl Image {
    /// What is decided about a flow: by the first rule in the order that takes it. `None`: no rule does.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Option<Decision> {
        abi::Image(Words(&self.0)).decide(flow)
    }

    /// What it consists of.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.0
    }

    /// What packets are looked at for: [`redirector_ebpf::image::looks`].
    #[must_use]
    pub fn looks(&self) -> u32 {
        self.0[head::LOOKS as usize]
    }

    /// Bytes of it in the kernel.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of_val(&*self.0)
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} bytes)", self.size())
    }
}

/// Of ports' classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// 8 bits: at most 256 of them, and a short image.
    Narrow,
    /// 16 bits.
    Wide,
}

/// An image in the making. What is written twice is there once.
pub(super) struct Builder {
    words: Vec<u32>,
    known: HashMap<Box<[u32]>, u32>,
    pub(super) seed: u32,
    width: Width,
}

impl Builder {
    pub(super) fn new(seed: u32, width: Width) -> Self {
        let mut words = vec![0; head::WORDS as usize];
        words[(head::NOTHING + leaf::RANK) as usize] = NO_RANK;
        words[head::SEED as usize] = seed;
        Self { words, known: HashMap::new(), seed, width }
    }

    /// Whether its [`redirector_ebpf::image::pages`] are narrow.
    pub(super) fn is_narrow(&self) -> bool {
        self.width == Width::Narrow
    }

    /// Changes a word of the head.
    pub(super) fn set(&mut self, at: u32, word: u32) {
        self.words[at as usize] = word;
    }

    /// Some packet is looked at for this: [`redirector_ebpf::image::looks`].
    pub(super) fn look_at(&mut self, look: u32) {
        self.words[head::LOOKS as usize] |= look;
    }

    /// Writes words that were not written before.
    pub(super) fn push(&mut self, words: &[u32]) -> Result<u32, CompileError> {
        let at = self.words.len();
        if at + words.len() > if self.is_narrow() { NARROW } else { MOST } {
            return Err(CompileError::TooLarge);
        }
        self.words.extend(words);
        Ok(u32::try_from(at).expect("at most MOST"))
    }

    /// Where these words are; writes them if they are not there yet.
    pub(super) fn intern(&mut self, words: &[u32]) -> Result<u32, CompileError> {
        if let Some(at) = self.known.get(words) {
            return Ok(*at);
        }
        let at = self.push(words)?;
        self.known.insert(words.into(), at);
        Ok(at)
    }

    pub(super) fn finish(mut self) -> Image {
        let length = self.words.len();
        self.words[head::LENGTH as usize] = u32::try_from(length).expect("at most MOST");
        let least = if self.is_narrow() { LEAST } else { 2 * NARROW };
        self.words.resize(length.next_power_of_two().max(least), 0);
        Image(self.words.into())
    }
}
