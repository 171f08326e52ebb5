//! One relayed connection.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{Stream, buffer::Buffer};

/// How a relayed connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides have sent FIN, and each FIN has been passed on.
    Finished,
    /// The client reset the connection or vanished.
    ClientFailed,
    /// The destination reset the connection or vanished.
    DestinationFailed,
    /// No byte in either direction for as long as the rule allows.
    Idle,
}

/// Bytes that were read, by direction: of one connection, and of all that it is one of.
#[derive(Debug, Default)]
pub struct Traffic<'a> {
    /// From the client.
    pub from_client: AtomicU64,
    /// From the destination.
    pub from_destination: AtomicU64,
    /// Where the same bytes are counted too: from clients, from destinations.
    pub totals: Option<(&'a AtomicU64, &'a AtomicU64)>,
}

impl Traffic<'_> {
    fn add_from_client(&self, bytes: u64) {
        self.from_client.fetch_add(bytes, Ordering::Relaxed);
        if let Some((total, _)) = self.totals {
            total.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn add_from_destination(&self, bytes: u64) {
        self.from_destination.fetch_add(bytes, Ordering::Relaxed);
        if let Some((_, total)) = self.totals {
            total.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// Copies both ways. Bounded: one buffer for each direction, and only while it holds bytes that the other side
/// does not take; then nothing is read from the first, whose peer feels it.
///
/// `idle` of zero is no limit. Does not close the streams: see [`super::linger()`] and [`super::reset`].
pub async fn relay(client: &Stream, destination: &Stream, idle: Duration, traffic: &Traffic<'_>) -> End {
    let begin = Instant::now();
    let last = AtomicU64::new(0);
    let touch = || last.store(millis(begin.elapsed()), Ordering::Relaxed);
    let copies = async {
        let forth = pump(client, destination, |bytes| traffic.add_from_client(bytes), &touch);
        let back = pump(destination, client, |bytes| traffic.add_from_destination(bytes), &touch);
        // Not one after the other and not the first that ends: a half-closed connection lives on.
        tokio::try_join!(
            async { forth.await.map_err(|side| side.end(End::ClientFailed, End::DestinationFailed)) },
            async { back.await.map_err(|side| side.end(End::DestinationFailed, End::ClientFailed)) },
        )
    };
    tokio::select! {
        biased;
        result = copies => result.err().unwrap_or(End::Finished),
        // A copy that waits for one side to take bytes does not read from the other, and does not see its reset.
        () = client.failed() => End::ClientFailed,
        () = destination.failed() => End::DestinationFailed,
        () = idle_for(idle, begin, &last) => End::Idle,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Ready when `last` is `idle` ago. One timer, set anew only when it fires.
async fn idle_for(idle: Duration, begin: Instant, last: &AtomicU64) {
    if idle.is_zero() {
        return std::future::pending().await;
    }
    loop {
        let until = begin + Duration::from_millis(last.load(Ordering::Relaxed)) + idle;
        if until <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(until).await;
    }
}

/// Which end of a copy failed.
enum Side {
    From,
    To,
}

impl Side {
    fn end(self, from: End, to: End) -> End {
        match self {
            Self::From => from,
            Self::To => to,
        }
    }
}

/// Copies one way until the FIN, and passes it on.
async fn pump(from: &Stream, to: &Stream, count: impl Fn(u64), touch: &impl Fn()) -> Result<(), Side> {
    loop {
        from.readable().await.map_err(|_| Side::From)?;
        // Taken only now: a connection that has nothing to say holds no buffer.
        let mut buffer = Buffer::take();
        loop {
            let length = match from.try_read(buffer.bytes()) {
                Ok(0) => {
                    drop(buffer);
                    return to.shutdown_write().map_err(|_| Side::To);
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Side::From),
            };
            count(length as u64);
            touch();
            write_all(to, &buffer.bytes()[..length]).await.map_err(|_| Side::To)?;
            touch();
            // A fast sender must not keep this thread from the other connections.
            tokio::task::consume_budget().await;
        }
    }
}

async fn write_all(to: &Stream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
