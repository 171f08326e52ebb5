//! Hand-off: listeners that another program holds, and what becomes of them.
//!
//! The daemon keeps no duplicate of a listener that it gave away: a kept one would go on to take connections
//! that nobody accepts. When the receiver and all who share its listeners are gone, the slots are empty and the
//! rule's `on_unavailable` decides, until the rule is gone a moment later.

mod budget;
mod end;
mod holders;
mod leased;
mod listen;
mod looks;
mod registry;
mod sweep;
mod task;

pub(crate) use end::{wait_for_end, watch};
pub(crate) use leased::{Holder, Lease, LeasedSocket, describe};
pub(crate) use listen::Answers;
pub(crate) use looks::Looks;
pub(crate) use registry::Registry;
pub(crate) use sweep::{Remaining, sweep};
