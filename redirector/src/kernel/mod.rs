//! The kernel side of one steered namespace: the program, its maps, its link.
//!
//! One [`Instance`] is one program with maps of its own; what all of them can have in common is in [`Shared`]. Nothing is pinned: an instance that is dropped, or
//! whose process dies, leaves nothing in the namespace. This module knows fds; it knows neither listeners nor
//! rules as users write them.

mod ask;
mod bypass;
mod counters;
mod error;
mod filler;
mod flow;
mod grace_period;
mod instance;
mod loaded;
mod object;
mod own_listeners;
mod parts;
pub mod probe;
mod rule_set;
mod shared;
mod stock;

pub use ask::{AskError, Fate, Heard, Outcome};
pub use bypass::{Bypass, BypassError, BypassGuard};
pub use counters::Counters;
pub use error::InstanceError;
pub use flow::{flow, flow_of};
pub use grace_period::wait_for_packets;
pub use instance::{Instance, Prepared};
pub use loaded::Ingress;
pub use object::PROGRAM;
pub use rule_set::{RuleSet, RuleSets};
pub use shared::Shared;

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
};

use crate::sys::bpf;

/// Puts a listener into a slot of a SOCKMAP ([`Instance::listeners`]), for a thread that has a table of files of its own. It has
/// been in a slot before, so that nobody gets to it by its own address.
///
/// # Errors
///
/// As bpf(2) `BPF_MAP_UPDATE_ELEM`: `EOPNOTSUPP` for a socket that does not listen.
pub fn fill_slot(map: BorrowedFd<'_>, slot: u32, listener: BorrowedFd<'_>) -> io::Result<()> {
    let value = u64::try_from(listener.as_raw_fd()).expect("an open fd is not negative");
    bpf::Map::<u32, u64>::new(map.try_clone_to_owned()?)?.update(&slot, &value, bpf::Update::Any)
}

/// A program that is attached to a namespace.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct AttachedProgram {
    /// Program id.
    pub id: u32,
    /// Name that its loader gave it, empty when it is unloaded meanwhile, or not for us to see.
    pub name: String,
}

/// The `sk_lookup` programs of a namespace (an nsfs fd), in the order in which they run.
///
/// # Errors
///
/// As bpf(2) `BPF_PROG_QUERY`, `BPF_PROG_GET_FD_BY_ID`, `BPF_OBJ_GET_INFO_BY_FD`.
pub fn attached_programs(netns: BorrowedFd<'_>) -> io::Result<Vec<AttachedProgram>> {
    let ids = bpf::query_programs(netns)?;
    let named = ids.into_iter().map(|id| {
        let name = match bpf::program_by_id(id).and_then(|program| bpf::program_info(program.as_fd())) {
            Ok(info) => info.name(),
            // It has been unloaded between the query and here; that it was there is still true. Or the caller may not see it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EPERM)) => String::new(),
            // Another redirector would go unseen.
            Err(error) => return Err(error),
        };
        Ok(AttachedProgram { id, name })
    });
    named.collect()
}
