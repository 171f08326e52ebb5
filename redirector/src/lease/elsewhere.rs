//! Where a program listens that should have listened on the port of its lease.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

/// Addresses that are remembered: enough to see the mistake.
const REMEMBERED: usize = 16;

/// The addresses, in the order of its calls.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(Mutex<Addresses>);

#[derive(Debug, Default)]
struct Addresses {
    addresses: Vec<SocketAddr>,
    is_told: bool,
}

impl Elsewhere {
    /// It listens at an address.
    pub(super) fn note(&self, address: SocketAddr) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.addresses.len() < REMEMBERED && !state.addresses.contains(&address) {
            state.addresses.push(address);
        }
    }

    /// Gives the addresses, once.
    pub(super) fn take(&self) -> Option<Vec<SocketAddr>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told = std::mem::replace(&mut state.is_told, true);
        (!is_told).then(|| std::mem::take(&mut state.addresses))
    }

    pub(super) fn is_anywhere(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).addresses.is_empty()
    }
}
