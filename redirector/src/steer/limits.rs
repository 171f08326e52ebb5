//! Limits of this process, and what they mean for the number of connections.

use std::{num::NonZeroU32, sync::Arc};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{files::Files, lingering::Lingering, places::Places};
use crate::relay::Patience;

/// How many connections there may be at once.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Of all namespaces, at most. There are fewer where namespaces take the files.
    pub total: usize,
    /// Files that this process can have open at once.
    pub files: u64,
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
    pub(crate) fn new(ConnectionLimits { total, files, per_client }: ConnectionLimits) -> Self {
        Self {
            places: Places::new(Files::new(files), total, per_client),
            lingering: Lingering::default(),
            patience: Patience::default(),
        }
    }

    /// Unused sockets that a namespace may have in stock: they are files too, and few where files are few.
    pub(crate) fn stock(&self) -> usize {
        usize::try_from(self.places.stock()).unwrap_or(usize::MAX)
    }

    /// Look-ups of host names that may wait for silent name servers: each has a file open.
    pub(crate) fn look_ups(&self) -> usize {
        self.stock().clamp(4, 64)
    }
}

/// Connections that fit into so many open files beside one namespace; at least one.
#[must_use]
pub fn affordable_connections(files: u64) -> usize {
    usize::try_from(Files::new(files).places(Files::OF_NAMESPACE)).unwrap_or(usize::MAX)
}

/// Instances that are made ahead, at most: a daemon with few files has none.
pub(crate) fn instances_in_stock() -> usize {
    const MOST: u64 = 8;
    /// Of so many files one instance has five.
    const FILES_FOR_EACH: u64 = 1024;
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from((files / FILES_FOR_EACH).min(MOST)).unwrap_or(0)
}

/// Raises what can be raised, and gives the limit of open files. None of it is a reason not to start: before
/// Linux 5.11 BPF memory counts as locked, after that the first one is not needed.
pub fn raise_limits() -> u64 {
    let unlimited = nix::libc::RLIM_INFINITY;
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited) {
        tracing::debug!(%error, "setrlimit RLIMIT_MEMLOCK: goes on with the limit as it is");
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
