//! Look-ups by getaddrinfo(3): few at once, each on a thread of its own.
//!
//! getaddrinfo(3) blocks its thread for as long as name servers are silent: 10 s, or half a minute. So nobody else's
//! work runs on these threads, and names that answer do not queue behind names that do not.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs as _},
    thread,
    time::Duration,
};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// Look-ups of one lane that run at once.
const OF_LANE: usize = 4;

/// After so long a look-up is taken for one that waits for a silent name server.
pub(super) const PROMPT: Duration = Duration::from_millis(250);

/// What a look-up queues behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Somebody waits for the answer.
    Urgent,
    /// The name is due.
    Regular,
    /// The last look-up of this name had no answer in time.
    Slow,
}

/// How a name is looked up: getaddrinfo(3), but in unit tests.
pub(super) type Ask = fn(&str) -> io::Result<Vec<IpAddr>>;

/// Bounds how many look-ups run at once, whatever the number of names.
#[derive(Debug)]
pub(super) struct LookUps {
    urgent: Semaphore,
    regular: Semaphore,
    slow: Semaphore,
    /// Those that have let go of their lane and still wait for name servers.
    overdue: Semaphore,
    ask: Ask,
}

/// A place in a lane.
#[derive(Debug)]
pub(super) struct LanePermit<'a> {
    held: SemaphorePermit<'a>,
    lane: Lane,
}

impl LookUps {
    pub(super) fn new(ask: Ask, overdue: usize) -> Self {
        let lane = || Semaphore::new(OF_LANE);
        Self { urgent: lane(), regular: lane(), slow: lane(), overdue: Semaphore::new(overdue), ask }
    }

    /// Waits for a place in a lane.
    pub(super) async fn place(&self, lane: Lane) -> LanePermit<'_> {
        let places = match lane {
            Lane::Urgent => &self.urgent,
            Lane::Regular => &self.regular,
            Lane::Slow => &self.slow,
        };
        LanePermit { held: places.acquire().await.expect("it is never closed"), lane }
    }

    /// Looks a name up. Must not be dropped before it is ready: the thread would go on, and its place would be free.
    /// `overdue` is called when the answer is not there in time; the lane's place is given up then, while there are
    /// others for those that wait.
    pub(super) async fn look_up<'a>(
        &'a self,
        LanePermit { mut held, lane }: LanePermit<'a>,
        name: &str,
        overdue: impl FnOnce(),
    ) -> io::Result<Vec<IpAddr>> {
        let (done, mut answer) = oneshot::channel();
        let (name, ask) = (name.to_owned(), self.ask);
        let work = move || drop(done.send(ask(&name)));
        thread::Builder::new().name("look up".into()).spawn(work)?;
        let in_time = tokio::time::timeout(PROMPT, &mut answer).await;
        let answered = match in_time {
            Ok(answered) => answered,
            Err(_) => {
                overdue();
                if lane != Lane::Slow
                    && let Ok(other) = self.overdue.try_acquire()
                {
                    held = other;
                }
                answer.await
            }
        };
        drop(held);
        answered.unwrap_or_else(|_| Err(io::Error::other("the look-up has panicked")))
    }
}

/// Asks the system, by `/etc/nsswitch.conf`, `/etc/hosts` and `/etc/resolv.conf` where it has them. Blocks.
pub(super) fn getaddrinfo(name: &str) -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for address in (name, 0).to_socket_addrs()? {
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
