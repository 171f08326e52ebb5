//! What works on this machine, found out by trying it.
//!
//! Everything is tried in network namespaces that are made for it and end with it, on threads of this process:
//! nothing is left behind, also when the process is killed, and no namespace of anybody else is steered, entered or
//! changed. Whatever could wait for long has a deadline. This module does not print, and mends nothing.

mod capabilities;
mod features;
mod limits;
mod namespaces;
mod neighbours;
mod report;
mod steering;
mod system;

use std::path::Path;

pub use capabilities::missing;
pub use report::{Check, Report, Status};

use crate::locate::Engines;

/// Tries everything. A daemon is not needed; whether one answers on `socket` is one of the checks, and so is which of
/// these container engines answer.
#[must_use]
pub fn examine(socket: &Path, engines: &Engines) -> Report {
    // As the daemon does when it starts: before Linux 5.11 maps cannot be made else.
    let files = crate::daemon::raise_limits();
    let checks = [
        vec![system::kernel()],
        namespaces::checks(),
        capabilities::checks(),
        features::checks(),
        steering::checks(),
        limits::checks(files),
        system::mounts(),
        neighbours::checks(socket, engines),
    ];
    Report::of(checks.concat())
}
