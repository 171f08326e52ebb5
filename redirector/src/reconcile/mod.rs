//! From what is wanted to what is steered. Every change is the same story, whoever asks for it:
//!
//! | step | where | |
//! | --- | --- | --- |
//! | look | [`places`], `destinations`, [`crate::steer::find_out`] | open what is named, and look at it: in nobody's turn |
//! | turn | `turn`, [`crate::steer::Turns`] | of all namespaces and containers that it is about, at once |
//! | want, have | [`crate::intent::Store`], `standing` | what is wanted; what is in force |
//! | plan | `attach::plan`, `apply::plan`, `follow::plan`, `detach` | rules each namespace will have, and what will be wanted: a `part::Plan` |
//! | make | `commit` | programs, maps, sockets: all that can fail |
//! | switch | `commit` | each namespace by one pointer, with the way back |
//! | let go | `commit` | of what nobody wants any more: it cannot fail |
//!
//! `attach`, `detach`, `apply`, a hand-off, a container that has moved and one that was found differ in how they look and plan.

mod apply;
mod attach;
mod bury;
mod bystanders;
mod close;
mod commit;
mod destinations;
mod detach;
mod discover;
mod follow;
mod hand_off;
mod judge;
mod leave;
mod marks;
mod part;
mod places;
mod refused;
mod standing;
#[cfg(test)]
mod testing;
mod turn;
mod warnings;
mod world;

pub(crate) use apply::{apply, retry};
pub(crate) use attach::attach;
pub(crate) use bury::bury;
pub(crate) use close::close;
pub(crate) use detach::detach;
pub(crate) use discover::discover;
pub(crate) use follow::{follow, follow_names};
pub(crate) use hand_off::{end_leases, lease};
pub(crate) use marks::until_up;
pub(crate) use places::{Sought, seek};
pub(crate) use world::{Ways, World};
