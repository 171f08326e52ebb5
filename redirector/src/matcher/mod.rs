//! From rules to the image that kernel and relay match with: see [`redirector_ebpf::image`] for what an image is. And what an
//! image decides, told in words of the rules.

mod cell;
mod hashed;
mod image;
mod order;
mod ports;
mod prefixes;
mod reason;
mod rests;
mod shadow;
mod table;

use redirector_ebpf::{
    CONSUMER_RELAY, Kind,
    image::{MOST, head, interfaces},
};

pub use image::Image;
pub use reason::{Account, Disagreement, Miss, Missed, NamedCell, account};
pub use shadow::{Shadow, shadowed};

use self::{
    cell::{Cell, KINDS},
    image::{Builder, Width},
    rests::Rests,
};
use crate::config::Rule;

/// Why rules do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// What has to be told apart takes more room than the kernel gives to one value.
    #[error(
        "compiled, the rules of this namespace take more than {} MiB: too many overlap in destination, port and source",
        (MOST * 4) >> 20
    )]
    TooLarge,
    /// To find out what has to be told apart would take too long.
    #[error(
        "the rules of this namespace are too many to be compiled, or too many overlap in destination, port and source"
    )]
    TooMuchWork,
    /// Each interface that a rule names has a table of its own.
    #[error("the rules of this namespace name more than {} interfaces", interfaces::MAX)]
    TooManyInterfaces,
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
    /// Indices of the interfaces that the rule names, as far as they are there. Without a name it takes what comes by any.
    pub interfaces: &'a [u32],
}

impl<'a> Placed<'a> {
    /// One that is up, of the relay's, in a namespace with no interface that it names.
    #[must_use]
    pub fn new(rule: &'a Rule, index: u32) -> Self {
        Self { rule, index, consumer: CONSUMER_RELAY, flags: 0, interfaces: &[] }
    }
}

/// Hashes of other seeds are tried when keys of one cannot be told apart.
const SEEDS: u32 = 8;

/// Compiles the rules of one namespace. The same rules always give the same image.
///
/// # Errors
///
/// [`CompileError`]: nothing of it can be in force.
pub fn compile<'a>(rules: impl IntoIterator<Item = Placed<'a>>) -> Result<Image, CompileError> {
    let rules: Vec<_> = rules.into_iter().collect();
    let cells = cell::cells(&rules)?;
    for width in [Width::Narrow, Width::Wide] {
        for seed in 0..SEEDS {
            match with_seed(&cells, seed, width) {
                Ok(Some(image)) => return Ok(image),
                Ok(None) => {}
                Err(CompileError::TooLarge) => break,
                Err(error) => return Err(error),
            }
        }
    }
    Err(CompileError::TooLarge)
}

/// `None` when two keys are the same to the hashes of this seed.
fn with_seed(cells: &[Cell], seed: u32, width: Width) -> Result<Option<Image>, CompileError> {
    let mut builder = Builder::new(seed, width);
    let mut rests = Rests::new();
    for (protocol, family) in KINDS {
        let of_kind = |cell: &&Cell| (cell.protocol, cell.family) == (protocol, family);
        let cells: Vec<_> = cells.iter().filter(of_kind).collect();
        let at = head::table(Kind::of(protocol, family));
        if !cells.is_empty() && !table::build(&mut builder, &mut rests, at, family, &cells)? {
            return Ok(None);
        }
    }
    Ok(rests.write(&mut builder)?.then(|| builder.finish()))
}

#[cfg(test)]
mod tests;
