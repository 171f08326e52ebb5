//! The daemon's own ends of the connections that it makes outside of steered namespaces.
//!
//! A destination can lead, by whatever route, to an address of a namespace that is steered, and from there to us
//! again. The client of such a connection is one of these ends. Address translation on the way hides it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// More than threads that dial, so that they seldom meet.
const SHARDS: usize = 64;

/// A set of local ends.
#[derive(Debug)]
pub(super) struct Outgoing([Mutex<HashSet<SocketAddr>>; SHARDS]);

impl Default for Outgoing {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Outgoing {
    fn shard(&self, end: SocketAddr) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.0[usize::from(end.port()) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters an end until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>, end: SocketAddr) -> OutgoingGuard {
        self.shard(end).insert(end);
        OutgoingGuard { outgoing: Arc::clone(self), end }
    }

    /// Whether a client is one of us.
    pub(super) fn contains(&self, client: SocketAddr) -> bool {
        self.shard(client).contains(&client)
    }
}

/// One end.
#[derive(Debug)]
pub(super) struct OutgoingGuard {
    outgoing: Arc<Outgoing>,
    end: SocketAddr,
}

impl Drop for OutgoingGuard {
    fn drop(&mut self) {
        self.outgoing.shard(self.end).remove(&self.end);
    }
}
