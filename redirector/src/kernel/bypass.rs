//! The bypass map: connections that the relay itself makes inside a steered namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, BorrowedFd},
    sync::Arc,
};

use redirector_ebpf::{BypassKey, FAMILY_IPV4, FAMILY_IPV6};

use super::shared::BypassMap;
use crate::sys::{SyscallError, bpf, named};

/// Why an entry could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BypassError {
    /// Its capacity is a limit of this program.
    #[error("the bypass map is full")]
    Full,
    /// The socket that had this port before is closed, its guard not yet dropped: take another port.
    #[error("the port was another connection's a moment ago")]
    Busy,
    /// Anything else.
    #[error("bpf BPF_MAP_UPDATE_ELEM BYPASS")]
    Syscall(#[source] io::Error),
}

/// Local ends in one namespace that are never steered. The program asks only for packets whose two addresses are equal.
#[derive(Debug)]
pub struct Bypass {
    map: Arc<BypassMap>,
    netns: u32,
}

impl Bypass {
    pub(super) fn new(map: Arc<BypassMap>, netns: u32) -> Self {
        Self { map, netns }
    }

    /// [`BypassKey::netns`] of its entries.
    pub(super) fn netns(&self) -> u32 {
        self.netns
    }

    pub(super) fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// Enters the local end of a socket that is bound and not yet connected. Drop the guard after the socket is
    /// closed: until then an ACK that answers a SYN cookie is looked up too.
    ///
    /// # Errors
    ///
    /// [`BypassError`].
    pub fn enter(self: &Arc<Self>, local: SocketAddr) -> Result<BypassGuard, BypassError> {
        let key = BypassKey { netns: self.netns, ..bypass_key(local) };
        match self.map.update(&key, &1, bpf::Update::New) {
            Ok(()) => Ok(BypassGuard { bypass: Arc::clone(self), key }),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => Err(BypassError::Full),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Err(BypassError::Busy),
            Err(error) => Err(BypassError::Syscall(error)),
        }
    }

    /// Whether there is an entry for a local end.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn contains(&self, local: SocketAddr) -> Result<bool, SyscallError> {
        let key = BypassKey { netns: self.netns, ..bypass_key(local) };
        named("bpf BPF_MAP_LOOKUP_ELEM BYPASS", self.map.lookup(&key)).map(|found| found.is_some())
    }
}

/// The key of a local end, in whatever namespace.
#[must_use]
pub fn bypass_key(local: SocketAddr) -> BypassKey {
    let (family, address) = match local.ip() {
        IpAddr::V4(v4) => (FAMILY_IPV4, [u32::from_ne_bytes(v4.octets()), 0, 0, 0]),
        IpAddr::V6(v6) => (FAMILY_IPV6, bytemuck::cast(v6.octets())),
    };
    BypassKey { family, port: local.port().into(), address, netns: 0 }
}

/// One entry of the bypass map.
#[derive(Debug)]
pub struct BypassGuard {
    bypass: Arc<Bypass>,
    key: BypassKey,
}

impl Drop for BypassGuard {
    fn drop(&mut self) {
        if let Err(error) = self.bypass.map.delete(&self.key) {
            // Left behind it would let one later client from the namespace itself, with that very port, pass.
            tracing::error!(%error, "bpf BPF_MAP_DELETE_ELEM BYPASS");
        }
    }
}
