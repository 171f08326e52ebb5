//! The words of an image, and how they are put together.

use std::{collections::HashMap, fmt};

use redirector_ebpf::{
    Decision, Flow, Words,
    image::{LARGE, MEDIUM, SMALL, head},
};

use super::CompileError;

/// A compiled rule set, in the smallest of three sizes.
#[derive(Clone, PartialEq, Eq)]
pub enum Image {
    /// 32 KiB.
    Small(Box<Words<SMALL>>),
    /// 256 KiB.
    Medium(Box<Words<MEDIUM>>),
    /// 4 MiB.
    Large(Box<Words<LARGE>>),
}

impl Image {
    /// What is decided about a flow: by the first rule in the order that takes it. `None`: no rule does.
    #[must_use]
    pub fn decide(&self, flow: &Flow) -> Option<Decision> {
        match self {
            Self::Small(words) => words.decide(flow),
            Self::Medium(words) => words.decide(flow),
            Self::Large(words) => words.decide(flow),
        }
    }

    /// Bytes of it in the kernel.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Small(_) => size_of::<Words<SMALL>>(),
            Self::Medium(_) => size_of::<Words<MEDIUM>>(),
            Self::Large(_) => size_of::<Words<LARGE>>(),
        }
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({} KiB)", self.size() >> 10)
    }
}

/// An image in the making. What is written twice is there once.
pub(super) struct Builder {
    words: Vec<u32>,
    known: HashMap<Box<[u32]>, u32>,
    pub(super) seed: u64,
}

impl Builder {
    pub(super) fn new(seed: u64) -> Self {
        let mut words = vec![0; head::WORDS as usize];
        words[head::SEED as usize] = seed as u32;
        words[head::SEED as usize + 1] = (seed >> 32) as u32;
        Self { words, known: HashMap::new(), seed }
    }

    /// Changes a word of the head.
    pub(super) fn set(&mut self, at: u32, word: u32) {
        self.words[at as usize] = word;
    }

    /// Writes words that were not written before.
    pub(super) fn push(&mut self, words: &[u32]) -> Result<u32, CompileError> {
        let at = self.words.len();
        if at + words.len() > LARGE {
            return Err(CompileError::TooLarge);
        }
        self.words.extend(words);
        Ok(u32::try_from(at).expect("at most LARGE"))
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
        self.words[head::LENGTH as usize] = u32::try_from(length).expect("at most LARGE");
        if length <= SMALL {
            Image::Small(filled(&self.words))
        } else if length <= MEDIUM {
            Image::Medium(filled(&self.words))
        } else {
            Image::Large(filled(&self.words))
        }
    }
}

fn filled<const N: usize>(words: &[u32]) -> Box<Words<N>> {
    let mut image: Box<Words<N>> = bytemuck::zeroed_box();
    image.0[..words.len()].copy_from_slice(words);
    image
}
