//! The integration tests, one binary. `README.md` in the folder above says how to write one.

mod changes;
mod death;
mod destinations;
mod ends;
mod harness;
mod original;
mod patience;
mod relay;
mod residue;

/// What a specification that gives no figure means by "at once".
const SECOND: std::time::Duration = std::time::Duration::from_secs(1);
