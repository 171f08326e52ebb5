//! What is wanted, and by whom. It is the only home of that: what is in force is compared with it. Pure: nothing is opened
//! here, nothing is waited for.
//!
//! A rule that waits is an intended rule whose subject has no place, or another one by now.

mod diff;
mod rule;
mod store;
mod subject;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use diff::{Diff, Have, Owner, Prune, Want, diff};
pub(crate) use rule::{Follows, HostNetns, Intended};
pub(crate) use store::{Edit, Here, Store};
pub(crate) use subject::Subject;
