//! Hand-off: listeners that another program holds, and what becomes of them.
//!
//! The daemon keeps no duplicate of a listener that it gave away: a kept one would go on to take connections
//! that nobody accepts. A lease goes on with the processes that hold its listeners when the receiver has ended. When nobody
//! holds them any more, the slots are empty and the rule's `on_unavailable` decides, until the rule is gone a moment later.

mod budget;
mod elsewhere;
mod end;
mod heirs;
mod held;
mod holders;
mod leased;
mod listen;
mod looks;
mod queue;
mod registry;
mod sweep;
mod task;

pub(crate) use end::{wait_for_end, watch};
pub(crate) use held::{Queues, is_open};
pub(crate) use leased::{GoesOn, Holder, Lease, LeasedSocket, Terms, describe};
pub(crate) use listen::Answers;
pub(crate) use looks::Looks;
pub(crate) use registry::Registry;
pub(crate) use sweep::{Remaining, sweep};
pub(crate) use task::Process;
