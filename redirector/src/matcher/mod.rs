//! From rules to the image that kernel and relay match with: see [`redirector_ebpf::image`] for what an image is. And what an
//! image decides, told in words of the rules.

mod cell;
mod error;
mod hashed;
mod image;
mod order;
mod placed;
mod ports;
mod prefixes;
mod reason;
mod rests;
mod shadow;
mod table;

use redirector_ebpf::{Kind, image::head};

pub use error::CompileError;
pub use image::Image;
pub use placed::Placed;
pub use reason::{Account, Disagreement, Miss, Missed, NamedCell, account};
pub use shadow::{Shadow, shadowed};

use self::{
    cell::{Cell, KINDS},
    image::{Builder, Width},
    rests::Rests,
};

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
