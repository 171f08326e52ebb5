//! From rules to the image that kernel and relay match with: see [`redirector_ebpf::image`] for what an image is.

mod cell;
mod hashed;
mod image;
mod order;
mod ports;
mod prefixes;
mod table;

use redirector_ebpf::{
    FAMILY_IPV4, FAMILY_IPV6,
    image::{LARGE, head, table as layout},
};

pub use image::Image;

use self::{cell::Cell, image::Builder, table::Rests};
use crate::config::Rule;

/// Why rules do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// What has to be told apart takes more room than the kernel gives to one value.
    #[error(
        "compiled, the rules of this namespace take more than {} MiB: too many overlap in destination, port and source",
        (LARGE * 4) >> 20
    )]
    TooLarge,
    /// To find out what has to be told apart would take too long.
    #[error(
        "the rules of this namespace are too many to be compiled, or too many overlap in destination, port and source"
    )]
    TooMuchWork,
}

/// A rule's place in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Into the rule counters.
    pub index: u32,
    /// Whose listeners get what it steers: below 256.
    pub consumer: u32,
    /// Bits of [`redirector_ebpf::Decision::flags`].
    pub flags: u32,
}

/// Hashes of other seeds are tried when keys of one cannot be told apart.
const SEEDS: u64 = 8;

/// Compiles the rules of one namespace. The same rules always give the same image.
///
/// # Errors
///
/// [`CompileError`]: nothing of it can be in force.
pub fn compile<'a>(rules: impl IntoIterator<Item = Placed<'a>>) -> Result<Image, CompileError> {
    let rules: Vec<_> = rules.into_iter().collect();
    let cells = cell::cells(&rules)?;
    for seed in 0..SEEDS {
        if let Some(image) = with_seed(&cells, seed)? {
            return Ok(image);
        }
    }
    Err(CompileError::TooLarge)
}

/// `None` when two keys are the same to the hashes of this seed.
fn with_seed(cells: &[Cell], seed: u64) -> Result<Option<Image>, CompileError> {
    let mut builder = Builder::new(seed);
    let mut rests = Rests::new();
    for (family, at) in [(FAMILY_IPV4, head::TABLES), (FAMILY_IPV6, head::TABLES + layout::WORDS)] {
        let cells: Vec<_> = cells.iter().filter(|cell| cell.family == family).collect();
        if !cells.is_empty() && !table::build(&mut builder, &mut rests, at, family, &cells)? {
            return Ok(None);
        }
    }
    Ok(rests.write(&mut builder)?.then(|| builder.finish()))
}

#[cfg(test)]
mod tests;
