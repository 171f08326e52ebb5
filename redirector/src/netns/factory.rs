//! Sockets inside a namespace, for connections that go there one after the other.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::Instant;

use super::{Family, Location, enter};
use crate::sys::{blocking::blocking, inject::point, namespace::netns_of};

/// Most sockets that are made at one time.
const LARGEST_BATCH: usize = 32;

/// How long an unused socket is kept.
const KEPT: Duration = Duration::from_secs(1);

/// What leads to a namespace.
#[derive(Clone, Copy, Debug)]
pub enum Anchor<'a> {
    /// A socket that lives there.
    Socket(BorrowedFd<'a>),
    /// Where it was found; nothing of ours is there.
    Location(&'a Location),
}

/// Makes TCP sockets in one namespace. One visit makes several while the
/// demand lasts, so that most connections find theirs ready; what is not used within a second is closed.
#[derive(Debug)]
pub struct SocketFactory {
    ipv4: Shelf,
    ipv6: Shelf,
    largest_batch: usize,
}

#[derive(Debug, Default)]
struct Shelf {
    stock: Arc<Mutex<Stock>>,
    /// One visit at a time; the others wait for what it brings.
    visit: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Stock {
    sockets: Vec<Socket>,
    /// Size of the next batch, less one.
    batch: usize,
    last_use: Option<Instant>,
    closed: Closed,
    /// Whether [`expire`] runs: one task at most.
    expires: bool,
}

/// Whether sockets may still be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Closed {
    #[default]
    No,
    Yes,
}

impl SocketFactory {
    /// Begins with none. It keeps at most `stock` unused sockets of each family, and never more than 31.
    #[must_use]
    pub fn new(stock: usize) -> Self {
        let largest_batch = stock.saturating_add(1).min(LARGEST_BATCH);
        Self { ipv4: Shelf::default(), ipv6: Shelf::default(), largest_batch }
    }

    /// A non-blocking, unbound TCP socket in the namespace that `anchor` leads to.
    ///
    /// # Errors
    ///
    /// As socket(2), setns(2), ioctl(2) `SIOCGSKNS`, [`Location::enter`].
    pub async fn socket(&self, anchor: Anchor<'_>, family: Family) -> io::Result<Socket> {
        let (shelf, domain) = match family {
            Family::Ipv4 => (&self.ipv4, Domain::IPV4),
            Family::Ipv6 => (&self.ipv6, Domain::IPV6),
        };
        if let Some(socket) = shelf.take() {
            return Ok(socket);
        }
        let _visit = shelf.visit.lock().await;
        if let Some(socket) = shelf.take() {
            return Ok(socket);
        }
        let count = shelf.next_batch(self.largest_batch);
        let made = match anchor {
            Anchor::Socket(socket) => {
                let socket = socket.try_clone_to_owned()?;
                blocking(move || {
                    let netns = netns_of(socket.as_fd())?;
                    drop(socket);
                    enter(&netns, || make(domain, count))?
                })
                .await
            }
            Anchor::Location(location) => {
                let location = location.clone();
                blocking(move || location.enter(|| make(domain, count))).await
            }
        };
        let mut sockets = made??;
        let first = sockets.pop().ok_or_else(|| io::Error::other("no socket was made"))?;
        shelf.put(sockets);
        Ok(first)
    }

    /// Closes what is kept, and keeps nothing from here on.
    pub fn clear(&self) {
        for shelf in [&self.ipv4, &self.ipv6] {
            let mut stock = lock(&shelf.stock);
            stock.closed = Closed::Yes;
            stock.sockets.clear();
        }
    }
}

/// At least one, or an error: a full fd table must not fail the connection that would have had the first.
fn make(domain: Domain, count: usize) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = || Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP));
        match point("socket").and_then(|()| socket()) {
            Ok(socket) => sockets.push(socket),
            Err(error) if sockets.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(sockets)
}

fn lock(stock: &Mutex<Stock>) -> std::sync::MutexGuard<'_, Stock> {
    stock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shelf {
    fn take(&self) -> Option<Socket> {
        let mut stock = lock(&self.stock);
        stock.last_use = Some(Instant::now());
        stock.sockets.pop()
    }

    /// 1, then twice as many each time while the demand lasts.
    fn next_batch(&self, largest: usize) -> usize {
        let mut stock = lock(&self.stock);
        let count = stock.batch + 1;
        stock.batch = (count * 2).min(largest) - 1;
        count
    }

    fn put(&self, sockets: Vec<Socket>) {
        let mut stock = lock(&self.stock);
        if stock.closed == Closed::Yes {
            return;
        }
        stock.sockets.extend(sockets);
        if !stock.expires {
            stock.expires = true;
            tokio::spawn(expire(Arc::clone(&self.stock)));
        }
    }
}

/// Closes a stock when nobody has taken from it for [`KEPT`], and begins again with a small batch. A stock that
/// is empty for a moment is in demand, so that does not end it.
async fn expire(stock: Arc<Mutex<Stock>>) {
    loop {
        let until = {
            let mut stock = lock(&stock);
            let until = stock.last_use.unwrap_or_else(Instant::now) + KEPT;
            if stock.closed == Closed::Yes || until <= Instant::now() {
                stock.sockets = Vec::new();
                stock.batch = 0;
                stock.expires = false;
                return;
            }
            until
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live_tasks() -> usize {
        tokio::runtime::Handle::current().metrics().num_alive_tasks()
    }

    fn some() -> Vec<Socket> {
        make(Domain::IPV4, 2).unwrap()
    }

    #[tokio::test]
    async fn one_task_expires_a_stock_however_often_it_is_filled() {
        let shelf = Shelf::default();
        for _ in 0..100 {
            shelf.put(some());
            while shelf.take().is_some() {}
        }
        assert_eq!(live_tasks(), 1);
        shelf.put(some());
        assert_eq!([shelf.next_batch(LARGEST_BATCH), shelf.next_batch(LARGEST_BATCH)], [1, 2]);
        let mut look = tokio::time::interval(KEPT / 100);
        while live_tasks() > 0 {
            look.tick().await;
        }
        assert!(shelf.take().is_none());
        assert_eq!(shelf.next_batch(LARGEST_BATCH), 1);
    }

    #[tokio::test]
    async fn after_clear_nothing_is_kept() {
        let factory = SocketFactory::new(LARGEST_BATCH);
        factory.ipv4.put(some());
        factory.clear();
        assert!(factory.ipv4.take().is_none());
        factory.ipv4.put(some());
        assert!(factory.ipv4.take().is_none());
    }
}
