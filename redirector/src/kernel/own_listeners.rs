//! The map of listeners that belong to hand-offs: nobody gets to them by their own address.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, BorrowedFd},
    sync::Arc,
};

use redirector_ebpf::{FAMILY_IPV4, FAMILY_IPV6, OwnListener};
use socket2::SockRef;

use crate::sys::{SyscallError, bpf, named};

/// The map, which all namespaces share. An fd when it is written, a cookie when it is read. The kernel takes out what is closed.
pub(super) type OwnListenerMap = bpf::Map<OwnListener, u64>;

/// The listeners in one namespace.
#[derive(Debug)]
pub(super) struct OwnListeners {
    map: Arc<OwnListenerMap>,
    netns: u32,
}

impl OwnListeners {
    pub(super) fn new(map: Arc<OwnListenerMap>, netns: u32) -> Self {
        Self { map, netns }
    }

    pub(super) fn map(&self) -> &OwnListenerMap {
        &self.map
    }

    /// Enters a listener, for as long as anybody has it open. One that is bound elsewhere than to a loopback address is reachable
    /// by what others do as well, and is not entered.
    pub(super) fn enter(&self, listener: BorrowedFd<'_>) -> Result<(), SyscallError> {
        let address = named("getsockname", SockRef::from(&listener).local_addr())?;
        let Some(key) = address.as_socket().and_then(|address| self.key(address)) else { return Ok(()) };
        let fd = u64::try_from(listener.as_raw_fd()).expect("an open fd is not negative");
        named("bpf BPF_MAP_UPDATE_ELEM OWN_LISTENERS", self.map.update(&key, &fd, bpf::Update::Any))
    }

    /// The cookie of the one at this address.
    pub(super) fn get(&self, address: SocketAddr) -> io::Result<Option<u64>> {
        self.key(address).map_or(Ok(None), |key| self.map.lookup(&key))
    }

    fn key(&self, address: SocketAddr) -> Option<OwnListener> {
        let ip = address.ip().to_canonical();
        let family = match ip {
            IpAddr::V4(ip) if ip == std::net::Ipv4Addr::LOCALHOST => FAMILY_IPV4,
            IpAddr::V6(ip) if ip.is_loopback() => FAMILY_IPV6,
            _ => return None,
        };
        Some(OwnListener { family, port: address.port().into(), netns: self.netns })
    }
}
