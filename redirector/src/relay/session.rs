//! One relayed connection.

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{LINGER_LIMIT, Stream, buffer::Buffer};

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
    /// Those from the client that the destination's socket has taken.
    to_destination: AtomicU64,
    /// Whether the client's FIN was passed on: it counts as a byte until it is acknowledged.
    fin_to_destination: AtomicBool,
    /// Where the same bytes are counted too: from clients, from destinations.
    pub totals: Option<(&'a AtomicU64, &'a AtomicU64)>,
}

impl<'a> Traffic<'a> {
    /// Where the same bytes are counted too: from clients, from destinations.
    #[must_use]
    pub fn of(totals: (&'a AtomicU64, &'a AtomicU64)) -> Self {
        Self { totals: Some(totals), ..Self::default() }
    }

    /// Bytes that the client's TCP knows to have arrived, and that the destination's TCP has not acknowledged. Both
    /// streams are as the relay has left them.
    #[must_use]
    pub fn lost(&self, client: &Stream, destination: &Stream) -> u64 {
        let read = self.from_client.load(Ordering::Relaxed);
        let taken = self.to_destination.load(Ordering::Relaxed);
        let fin = u64::from(self.fin_to_destination.load(Ordering::Relaxed));
        let missing = u64::from(destination.unacknowledged()).saturating_sub(fin);
        (read - taken) + missing.min(taken) + u64::from(client.unread())
    }

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
/// When one side fails, what it had sent before is still copied to the other. `idle` of zero is no limit. Does
/// not close the streams: see [`super::linger()`] and [`super::reset`].
pub async fn relay(client: &Stream, destination: &Stream, idle: Duration, traffic: &Traffic<'_>) -> End {
    let clock = Clock::start();
    let broken = AtomicBool::new(false);
    let taken = |bytes| {
        traffic.to_destination.fetch_add(bytes, Ordering::Relaxed);
    };
    let forth = pump(client, destination, &broken, &clock, (|bytes| traffic.add_from_client(bytes), taken));
    let counted = (|bytes| traffic.add_from_destination(bytes), |_| {});
    let back = pump(destination, client, &broken, &clock, counted);
    let (mut forth, mut back) = (pin!(forth), pin!(back));
    let mut idle = pin!(clock.idle_for(idle, client, destination));
    let (mut forth_ended, mut back_ended) = (false, false);
    let failed = loop {
        let side = tokio::select! {
            biased;
            result = &mut forth, if !forth_ended => {
                forth_ended = true;
                traffic.fin_to_destination.store(result.is_ok(), Ordering::Relaxed);
                result.err().map(|side| side.end(End::ClientFailed, End::DestinationFailed))
            }
            result = &mut back, if !back_ended => {
                back_ended = true;
                result.err().map(|side| side.end(End::DestinationFailed, End::ClientFailed))
            }
            // A copy that waits for one side to take bytes does not read from the other, and does not see its
            // reset.
            () = client.failed() => Some(End::ClientFailed),
            () = destination.failed() => Some(End::DestinationFailed),
            () = &mut idle => return End::Idle,
        };
        match side {
            Some(end) => break end,
            None if forth_ended && back_ended => return End::Finished,
            None => {}
        }
    };
    // What the failed side said last is on its way through the copy from it, and in its receive queue.
    broken.store(true, Ordering::Relaxed);
    let survivor = if failed == End::ClientFailed { destination } else { client };
    let last_words = async {
        match failed {
            End::ClientFailed if !forth_ended => drop(forth.await),
            End::DestinationFailed if !back_ended => drop(back.await),
            _ => {}
        }
    };
    tokio::select! {
        biased;
        () = last_words => {}
        () = survivor.failed() => {}
        () = clock.idle_for(LINGER_LIMIT, client, destination) => {}
    }
    failed
}

/// When a connection last made progress.
struct Clock {
    begin: Instant,
    /// Milliseconds after `begin`.
    last: AtomicU64,
}

impl Clock {
    fn start() -> Self {
        Self { begin: Instant::now(), last: AtomicU64::new(0) }
    }

    fn touch(&self) {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Ready when there was no progress for `limit`: neither bytes that we moved, nor acknowledgements of those
    /// that we moved before. One timer, set anew only when it fires.
    async fn idle_for(&self, limit: Duration, one: &Stream, other: &Stream) {
        if limit.is_zero() {
            return std::future::pending().await;
        }
        let mut unacknowledged = 0;
        loop {
            let until = self.begin + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if until > Instant::now() {
                tokio::time::sleep_until(until).await;
                continue;
            }
            let now = one.unacknowledged() + other.unacknowledged();
            if now == unacknowledged {
                return;
            }
            unacknowledged = now;
            self.touch();
        }
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

/// Copies one way until the FIN, and passes it on, unless the connection is `broken` by then: it was no FIN. Counts what
/// is read, and what is written.
async fn pump(
    from: &Stream,
    to: &Stream,
    broken: &AtomicBool,
    clock: &Clock,
    (read, written): (impl Fn(u64), impl Fn(u64)),
) -> Result<(), Side> {
    loop {
        from.readable().await.map_err(|_| Side::From)?;
        // Taken only now: a connection that has nothing to say holds no buffer.
        let mut buffer = Buffer::take();
        loop {
            let length = match from.try_read(buffer.bytes()) {
                Ok(0) if broken.load(Ordering::Relaxed) => return Err(Side::From),
                Ok(0) => {
                    drop(buffer);
                    return to.shutdown_write().map_err(|_| Side::To);
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Side::From),
            };
            read(length as u64);
            write_all(to, &buffer.bytes()[..length], clock, &written).await.map_err(|_| Side::To)?;
            // A fast sender must not keep this thread from the other connections.
            tokio::task::consume_budget().await;
        }
    }
}

async fn write_all(to: &Stream, mut bytes: &[u8], clock: &Clock, count: impl Fn(u64)) -> io::Result<()> {
    clock.touch();
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(written) => {
                bytes = &bytes[written..];
                count(written as u64);
                clock.touch();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
