//! The bypass map: connections that the relay itself makes inside a steered namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use redirector_ebpf::{BypassKey, FAMILY_IPV4, FAMILY_IPV6, MAX_BYPASS};

use crate::sys::{SyscallError, bpf, named};

/// A namespace can have one for each so many that are still free. So one namespace alone can have a quarter of all, and
/// whatever the others have, some are left for the next.
const FREE_FOR_EACH: usize = 3;

/// Why an entry could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BypassError {
    /// Its capacity is a limit of this program.
    #[error("the namespace has its share of the bypass map")]
    Full,
    /// The socket that had these ends before is closed, its guard not yet dropped: take another port.
    #[error("the port was another connection's a moment ago")]
    Busy,
    /// Anything else.
    #[error("bpf BPF_MAP_UPDATE_ELEM BYPASS")]
    Syscall(#[source] io::Error),
}

/// The map, which all namespaces share.
#[derive(Debug)]
pub(super) struct BypassMap {
    map: bpf::Map<BypassKey, u32>,
    entries: AtomicUsize,
}

impl BypassMap {
    pub(super) fn new(map: bpf::Map<BypassKey, u32>) -> Self {
        Self { map, entries: AtomicUsize::default() }
    }
}

/// Connections in one namespace that are never steered. The program asks only for packets whose two addresses are equal.
#[derive(Debug)]
pub struct Bypass {
    shared: Arc<BypassMap>,
    netns: u32,
    entries: AtomicUsize,
}

impl Bypass {
    pub(super) fn new(shared: Arc<BypassMap>, netns: u32) -> Self {
        Self { shared, netns, entries: AtomicUsize::default() }
    }

    /// [`BypassKey::netns`] of its entries.
    pub(super) fn netns(&self) -> u32 {
        self.netns
    }

    pub(super) fn map(&self) -> BorrowedFd<'_> {
        self.shared.map.as_fd()
    }

    /// Enters a socket that is bound to `from`, where nobody else can be bound, and not yet connected to this port of the
    /// same address. The guard must go before the socket is closed, or can be shared: what anybody else
    /// sends between these two ends is not steered either.
    ///
    /// # Errors
    ///
    /// [`BypassError`].
    pub fn enter(self: &Arc<Self>, from: SocketAddr, to_port: u16) -> Result<BypassGuard, BypassError> {
        if !self.take_place() {
            return Err(BypassError::Full);
        }
        let key = self.key(from, to_port);
        match self.shared.map.update(&key, &1, bpf::Update::New) {
            Ok(()) => Ok(BypassGuard { bypass: Arc::clone(self), key, ended: AtomicBool::new(false) }),
            Err(error) => {
                self.give_place_back();
                Err(match error.raw_os_error() {
                    Some(libc::E2BIG) => BypassError::Full,
                    Some(libc::EEXIST) => BypassError::Busy,
                    _ => BypassError::Syscall(error),
                })
            }
        }
    }

    /// Whether there is an entry for a connection.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn contains(&self, from: SocketAddr, to_port: u16) -> Result<bool, SyscallError> {
        let found = self.shared.map.lookup(&self.key(from, to_port));
        named("bpf BPF_MAP_LOOKUP_ELEM BYPASS", found).map(|found| found.is_some())
    }

    fn key(&self, from: SocketAddr, to_port: u16) -> BypassKey {
        let (family, address) = words(from.ip());
        let (from_port, to_port) = (from.port().into(), to_port.into());
        BypassKey { family, from_port, to_port, address, netns: self.netns }
    }

    fn take_place(&self) -> bool {
        let all = self.shared.entries.fetch_add(1, Ordering::Relaxed);
        let own = self.entries.fetch_add(1, Ordering::Relaxed);
        let has_place = is_within_share(own, all);
        if !has_place {
            self.give_place_back();
        }
        has_place
    }

    fn give_place_back(&self) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.shared.entries.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a namespace with so many entries, of so many that all have, can have one more.
fn is_within_share(own: usize, all: usize) -> bool {
    own < MAX_BYPASS.saturating_sub(all) / FREE_FOR_EACH
}

/// An address as the program knows it, after its family.
pub(super) fn words(address: IpAddr) -> (u32, [u32; 4]) {
    match address {
        IpAddr::V4(v4) => (FAMILY_IPV4, [u32::from_ne_bytes(v4.octets()), 0, 0, 0]),
        IpAddr::V6(v6) => (FAMILY_IPV6, bytemuck::cast(v6.octets())),
    }
}

/// One entry of the bypass map.
#[derive(Debug)]
pub struct BypassGuard {
    bypass: Arc<Bypass>,
    key: BypassKey,
    ended: AtomicBool,
}

impl BypassGuard {
    /// Takes the entry out, if it is still there. Whether it is gone: while it is not, nobody else may have its ends.
    pub fn end(&self) -> bool {
        if self.ended.swap(true, Ordering::Relaxed) {
            return true;
        }
        if let Err(error) = self.bypass.shared.map.delete(&self.key) {
            // Left behind it would let one later client from the namespace itself, with those very ports, pass.
            tracing::error!(%error, "bpf BPF_MAP_DELETE_ELEM BYPASS");
            self.ended.store(false, Ordering::Relaxed);
            return false;
        }
        self.bypass.give_place_back();
        true
    }
}

impl Drop for BypassGuard {
    fn drop(&mut self) {
        // An entry that cannot be taken out keeps its place.
        self.end();
    }
}

#[cfg(test)]
impl BypassGuard {
    /// Of an entry that cannot be taken out.
    pub(crate) fn stuck() -> Self {
        let shared = Arc::new(BypassMap::new(bpf::Map::of_nothing()));
        let bypass = Arc::new(Bypass::new(shared, 0));
        assert!(bypass.take_place());
        let key = bypass.key(([127, 0, 0, 1], 1).into(), 2);
        Self { bypass, key, ended: AtomicBool::new(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_cannot_be_taken_out_is_tried_again_and_keeps_its_place() {
        let guard = BypassGuard::stuck();
        let bypass = Arc::clone(&guard.bypass);
        assert!(!guard.end() && !guard.end());
        drop(guard);
        let all = bypass.shared.entries.load(Ordering::Relaxed);
        assert_eq!((bypass.entries.load(Ordering::Relaxed), all), (1, 1));
    }

    #[test]
    fn a_namespace_has_a_quarter_of_all_and_leaves_some_for_each_that_comes_after() {
        let mut all = 0;
        let mut shares = Vec::new();
        for _ in 0..16 {
            let own = (0..).find(|own| !is_within_share(*own, all + own)).expect("an end");
            all += own;
            shares.push(own);
        }
        assert_eq!((shares[0], MAX_BYPASS), (16_384, 65_536), "as README.md says");
        assert!(shares.is_sorted_by(|one, next| one >= next), "{shares:?}");
        assert!(shares[15] > 100, "{shares:?}");
    }
}
