//! One relayed connection.

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use super::{Clock, Left, Patience, Stream, buffer::Buffer, linger::lost};

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
    /// What the destination's socket has taken.
    to_destination: Written,
    /// What the client's socket has taken.
    to_client: Written,
    /// Whether the last words of a side that failed were not all copied, because the other side was lost too.
    cut: AtomicBool,
    /// Where the same bytes are counted too.
    pub totals: Option<Totals<'a>>,
}

/// Bytes of many connections, by direction.
#[derive(Clone, Copy, Debug)]
pub struct Totals<'a> {
    /// From clients.
    pub from_clients: &'a AtomicU64,
    /// From destinations.
    pub from_destinations: &'a AtomicU64,
}

/// What was written to one side.
#[derive(Debug, Default)]
struct Written {
    bytes: AtomicU64,
    /// It counts as a byte until it is acknowledged.
    fin: AtomicBool,
}

impl Written {
    /// How many of `read` bytes the peer's TCP has not acknowledged.
    fn missing(&self, read: &AtomicU64, left: Left) -> u64 {
        let (read, written) = (read.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let fin = u64::from(self.fin.load(Ordering::Relaxed));
        (read - written) + u64::from(left.unacknowledged).saturating_sub(fin).min(written)
    }
}

/// Bytes that one side's TCP knows to have arrived, and that the other side's TCP has not acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LostBytes {
    /// From the client.
    pub to_destination: u64,
    /// From the destination.
    pub to_client: u64,
}

impl<'a> Traffic<'a> {
    /// Bytes of a connection that are counted in `totals` too.
    #[must_use]
    pub fn of(totals: Totals<'a>) -> Self {
        Self { totals: Some(totals), ..Self::default() }
    }

    /// What is lost when the streams are closed that have left this undone.
    #[must_use]
    pub fn lost(&self, client: Left, destination: Left) -> LostBytes {
        LostBytes {
            to_destination: self.to_destination.missing(&self.from_client, destination)
                + u64::from(client.unread),
            to_client: self.to_client.missing(&self.from_destination, client) + u64::from(destination.unread),
        }
    }

    /// Whether the last words of a side that failed were not all copied, because the other side was lost too.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    fn add_from_client(&self, bytes: u64) {
        self.from_client.fetch_add(bytes, Ordering::Relaxed);
        if let Some(totals) = &self.totals {
            totals.from_clients.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn add_from_destination(&self, bytes: u64) {
        self.from_destination.fetch_add(bytes, Ordering::Relaxed);
        if let Some(totals) = &self.totals {
            totals.from_destinations.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

/// Copies both ways. Bounded: one buffer for each direction, and only while it holds bytes that the other side
/// does not take; then nothing is read from the first, whose peer feels it.
///
/// When one side fails, what it had sent before is still copied to the other, for as long as that one is not lost
/// (`patience`). `idle` of zero is no limit. Does not close the streams: see [`super::Linger`] and [`super::reset`].
pub async fn relay(
    client: &Stream,
    destination: &Stream,
    (idle, patience): (Duration, Patience),
    clock: &Clock,
    traffic: &Traffic<'_>,
) -> End {
    let broken = AtomicBool::new(false);
    let forth = pump(
        client,
        destination,
        &broken,
        clock,
        (|bytes| traffic.add_from_client(bytes), &traffic.to_destination),
    );
    let back = pump(
        destination,
        client,
        &broken,
        clock,
        (|bytes| traffic.add_from_destination(bytes), &traffic.to_client),
    );
    let (mut forth, mut back) = (pin!(forth), pin!(back));
    let mut idle = pin!(clock.idle_for(idle, client, destination));
    let (mut forth_ended, mut back_ended) = (false, false);
    let failed = loop {
        let side = tokio::select! {
            biased;
            result = &mut forth, if !forth_ended => {
                forth_ended = true;
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
        () = lost(survivor, patience, clock) => traffic.cut.store(true, Ordering::Relaxed),
    }
    failed
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
    (read, written): (impl Fn(u64), &Written),
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
                    let sent = to.shutdown_write().map_err(|_| Side::To)?;
                    written.fin.store(sent, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Err(Side::From),
            };
            read(length as u64);
            write_all(to, &buffer.bytes()[..length], clock, &written.bytes).await.map_err(|_| Side::To)?;
            // A fast sender must not keep this thread from the other connections.
            tokio::task::consume_budget().await;
        }
    }
}

async fn write_all(to: &Stream, mut bytes: &[u8], clock: &Clock, count: &AtomicU64) -> io::Result<()> {
    clock.touch();
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(written) => {
                bytes = &bytes[written..];
                count.fetch_add(written as u64, Ordering::Relaxed);
                clock.touch();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
