//! The kernel side of one steered namespace: the program, its maps, its link.
//!
//! One [`Instance`] is one program with maps of its own; what all of them can have in common is in [`Shared`]. Nothing is pinned: an instance that is dropped, or
//! whose process dies, leaves nothing in the namespace. This module knows fds; it knows neither listeners nor
//! rules as users write them.

mod ask;
mod bypass;
mod counters;
mod flow;
mod instance;
mod loaded;
mod object;
pub mod probe;
mod rule_set;
mod shared;

pub use ask::{AskError, Fate, Heard, Outcome};
pub use bypass::{Bypass, BypassError, BypassGuard, bypass_key};
pub use counters::Counters;
pub use flow::{flow, flow_of};
pub use instance::{Ingress, Instance, InstanceError, Prepared};
pub use object::PROGRAM;
pub use rule_set::{RuleSet, RuleSets};
pub use shared::Shared;

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
};

use crate::sys::bpf;

/// A program that is attached to a namespace.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttachedProgram {
    /// Program id.
    pub id: u32,
    /// Name that its loader gave it, empty when it could not be asked.
    pub name: String,
}

/// The `sk_lookup` programs of a namespace (an nsfs fd), in the order in which they run.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_QUERY`.
pub fn attached_programs(netns: BorrowedFd<'_>) -> io::Result<Vec<AttachedProgram>> {
    let ids = bpf::query_programs(netns)?;
    Ok(ids
        .into_iter()
        .map(|id| {
            let info = bpf::program_by_id(id).and_then(|program| bpf::program_info(program.as_fd()));
            // It may have been unloaded between the query and here; that it was there is still true.
            AttachedProgram { id, name: info.map(|info| info.name()).unwrap_or_default() }
        })
        .collect())
}
