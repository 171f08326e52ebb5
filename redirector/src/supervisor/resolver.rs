//! Host names of destinations, looked up off the accept path.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio_util::task::AbortOnDropHandle;

/// getaddrinfo(3) does not tell how long an answer is good.
const INTERVAL: Duration = Duration::from_secs(30);

/// Until a name without an address is looked up again.
const SOON: Duration = Duration::from_secs(1);

/// The longest that one look-up may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A name and its addresses, looked up again every [`INTERVAL`]. When that fails the addresses stay.
#[derive(Debug)]
pub(super) struct Resolver {
    addresses: Arc<ArcSwap<Vec<IpAddr>>>,
    _task: AbortOnDropHandle<()>,
}

impl Resolver {
    /// Of a name that has no address yet; it is looked up soon, and again.
    pub(super) fn unresolved(name: &str) -> Self {
        Self::of(name, Vec::new())
    }

    /// Looks the name up a first time.
    pub(super) async fn new(name: &str) -> io::Result<Self> {
        Ok(Self::of(name, look_up(name).await?))
    }

    fn of(name: &str, addresses: Vec<IpAddr>) -> Self {
        let addresses = Arc::new(ArcSwap::from_pointee(addresses));
        let task = refresh(name.to_owned(), Arc::clone(&addresses));
        Self { addresses, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    /// As they were last found, in the order of the system's preference.
    pub(super) fn addresses(&self) -> Arc<Vec<IpAddr>> {
        self.addresses.load_full()
    }
}

async fn refresh(name: String, addresses: Arc<ArcSwap<Vec<IpAddr>>>) {
    loop {
        let is_resolved = !addresses.load().is_empty();
        tokio::time::sleep(if is_resolved { INTERVAL } else { SOON }).await;
        match look_up(&name).await {
            Ok(found) => addresses.store(Arc::new(found)),
            Err(error) if is_resolved => {
                tracing::warn!(name = %name.escape_debug(), %error, "destination not resolved; its last addresses stay");
            }
            // The rule is down, and has been said to be.
            Err(_) => {}
        }
    }
}

async fn look_up(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await;
    for address in found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
        // Neither is a destination: the first would be this host, whatever the name means.
        let usable = !address.ip().is_unspecified() && !address.ip().is_multicast();
        if usable && !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(addresses)
}
