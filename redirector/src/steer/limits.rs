//! Limits of this process, and what they mean for the number of connections.

use std::{num::NonZeroU32, sync::Arc};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{lingering::Lingering, places::Places};
use crate::relay::Patience;

/// How many connections there may be at once.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Of all namespaces.
    pub total: usize,
    /// Of one client's address in one namespace.
    pub per_client: Option<NonZeroU32>,
}

/// What connections of all namespaces share.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) places: Arc<Places>,
    /// Those that have ended and wait for their peers.
    pub(crate) lingering: Lingering,
    pub(crate) patience: Patience,
}

impl Limits {
    pub(crate) fn new(ConnectionLimits { total, per_client }: ConnectionLimits) -> Self {
        Self {
            places: Places::new(total, per_client),
            lingering: Lingering::default(),
            patience: Patience::default(),
        }
    }

    /// Unused sockets that a namespace may have in stock: they are files too, and few where files are few.
    pub(crate) fn stock(&self) -> usize {
        usize::try_from(self.places.per_namespace() / 8).unwrap_or(usize::MAX)
    }

    /// Look-ups of host names that may wait for silent name servers: each has a file open.
    pub(crate) fn look_ups(&self) -> usize {
        self.stock().clamp(4, 64)
    }
}

/// The part of the open files that is not for connections: a namespace has 10 fds for listeners, anchor, program, maps and
/// link, and sockets in stock for `original`.
const RESERVED: u64 = 4;

/// At least so many are not for connections: the daemon's own, of one namespace, and what a command needs. With
/// fewer, `list` and `detach` would fail while many clients come.
const LEAST_RESERVED: u64 = 32;

/// A connection's two sockets.
const FILES_PER_CONNECTION: u64 = 2;

/// Connections that fit into so many open files; at least one.
#[must_use]
pub fn affordable_connections(files: u64) -> usize {
    let connections = files.saturating_sub(LEAST_RESERVED.max(files / RESERVED)) / FILES_PER_CONNECTION;
    usize::try_from(connections).unwrap_or(usize::MAX).max(1)
}

/// Raises what can be raised, and gives the limit of open files. None of it is a reason not to start: before
/// Linux 5.11 BPF memory counts as locked, after that the first one is not needed.
pub fn raise_limits() -> u64 {
    let unlimited = nix::libc::RLIM_INFINITY;
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited) {
        tracing::warn!(%error, "setrlimit RLIMIT_MEMLOCK: goes on with the limit as it is");
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                tracing::warn!(%error, soft, hard, "setrlimit RLIMIT_NOFILE: goes on with the limit as it is");
                soft
            }
        },
        Ok((soft, _)) => soft,
        Err(error) => {
            tracing::warn!(%error, "getrlimit RLIMIT_NOFILE");
            1024
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_files_is_not_for_connections_and_32_at_least() {
        for (files, connections) in [(0, 1), (32, 1), (64, 16), (128, 48), (1024, 384), (20_000, 7_500)] {
            assert_eq!(affordable_connections(files), connections, "{files}");
        }
        assert_eq!(
            affordable_connections(u64::MAX),
            usize::try_from((u64::MAX - u64::MAX / 4) / 2).unwrap_or(usize::MAX)
        );
    }
}
