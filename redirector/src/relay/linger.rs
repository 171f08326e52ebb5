//! Closing sockets that live in somebody else's namespace.
//!
//! A socket that is closed while data or its FIN is unacknowledged becomes an orphan of the kernel's, which
//! keeps the namespace alive until its retransmissions end: minutes, for a client that has vanished. So such a
//! socket is not closed but kept until all is acknowledged, and reset when its peer is lost.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{Clock, Lost, Patience, Stream, patience::Judge};
use crate::sys::socket::{self, TcpInfo};

/// The first pause between two looks. An answer usually is there at the first look already.
const FIRST: Duration = Duration::from_millis(1);

/// The pause grows to this fast, and slowly from there on: who waits that long may wait long.
const USUAL: Duration = Duration::from_secs(1);

/// The longest pause. Many can wait, and each look costs something.
const LONGEST: Duration = Duration::from_secs(10);

/// The pause after this one.
fn longer(pause: Duration) -> Duration {
    if pause < USUAL { (pause * 2).min(USUAL) } else { (pause * 9 / 8).min(LONGEST) }
}

/// Else the pause between two probes of a closed window grows to two minutes, and for so long nobody knows whether
/// the peer is there.
const LONGEST_PROBE_PAUSE: i32 = 15_000;

/// `TCP_CLOSE`, include/net/tcp_states.h.
const CLOSE: u8 = 7;

/// How the wait for a peer's acknowledgement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It has all.
    Acknowledged,
    /// It has reset the connection, or the kernel has given it up.
    Failed,
    /// It is not waited for any longer.
    Lost(Lost),
}

/// What a look at a peer shows that has not acknowledged all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outstanding {
    /// Bytes that it has not acknowledged, a FIN as one more.
    pub bytes: u32,
    /// It has acknowledged some since the last look.
    pub progress: bool,
}

/// Waits until a peer has acknowledged all that it was sent.
#[derive(Debug)]
pub struct Linger<'a> {
    stream: &'a Stream,
    judge: Judge,
    pause: Duration,
}

impl<'a> Linger<'a> {
    /// Of a stream to which nothing more is written.
    #[must_use]
    pub fn new(stream: &'a Stream, patience: Patience) -> Self {
        Self { stream, judge: Judge::new(patience, Instant::now()), pause: FIRST }
    }

    /// Looks once.
    ///
    /// # Errors
    ///
    /// It is no error, but the end: how it came.
    pub fn look(&mut self) -> Result<Outstanding, Settled> {
        let bytes = self.stream.unacknowledged();
        if bytes == 0 {
            return Err(Settled::Acknowledged);
        }
        let progress = judged(&mut self.judge, self.stream)?;
        Ok(Outstanding { bytes, progress })
    }

    /// Whether there was a pause already.
    #[must_use]
    pub fn has_waited(&self) -> bool {
        self.pause > FIRST
    }

    /// Waits until it is time to look again.
    pub async fn pause(&mut self) {
        if self.pause == FIRST {
            probe_often(self.stream);
        }
        tokio::time::sleep(self.pause).await;
        self.pause = longer(self.pause);
    }
}

fn judged(judge: &mut Judge, stream: &Stream) -> Result<bool, Settled> {
    let info = match stream {
        // Nothing is under way there.
        Stream::Unix(_) => TcpInfo::default(),
        Stream::Tcp(stream) => socket::tcp_info(stream.as_fd()).map_err(|_| Settled::Failed)?,
    };
    if info.state == CLOSE {
        return Err(Settled::Failed);
    }
    judge.look(Instant::now(), info).map_err(Settled::Lost)
}

fn probe_often(stream: &Stream) {
    if let Stream::Tcp(stream) = stream {
        // Where the kernel has no such option it takes longer to see that a peer with a closed window is gone.
        drop(socket::set_longest_retransmission_pause(stream.as_fd(), LONGEST_PROBE_PAUSE));
    }
}

/// Ready when the peer of a stream that is still written to, at the pace that it takes, is lost.
pub(super) async fn lost(stream: &Stream, patience: Patience, clock: &Clock) {
    probe_often(stream);
    let mut judge = Judge::new(patience, Instant::now());
    let mut pause = USUAL;
    loop {
        judge.progressed(clock.last().into_std());
        match judged(&mut judge, stream) {
            Ok(true) => clock.touch(),
            Ok(false) => {}
            Err(_) => return,
        }
        tokio::time::sleep(pause).await;
        pause = longer(pause);
    }
}

/// Closes a stream with RST, at once and without an orphan. A Unix stream is just closed.
pub fn reset(stream: Stream) {
    reset_when_closed(&stream);
    drop(stream);
}

/// Has the last close of a stream send RST, and leave no orphan.
pub fn reset_when_closed(stream: &Stream) {
    if let Stream::Tcp(_) = stream
        && let Err(error) = SockRef::from(stream).set_linger(Some(Duration::ZERO))
    {
        tracing::error!(%error, "setsockopt SO_LINGER");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_often_at_first_and_seldom_for_who_waits_long() {
        let pauses: Vec<_> =
            std::iter::successors(Some(FIRST), |pause| Some(longer(*pause))).take(400).collect();
        let within = |seconds| {
            let mut sum = Duration::ZERO;
            pauses.iter().take_while(move |pause| {
                sum += **pause;
                sum <= Duration::from_secs(seconds)
            })
        };
        assert!(within(10).all(|pause| *pause <= 2 * USUAL));
        // As often as each second it would be ten times as many.
        assert!((300..400).contains(&within(3600).count()), "{}", within(3600).count());
        assert_eq!(pauses.last(), Some(&LONGEST));
        let patience = Patience::default();
        assert!(3 * LONGEST <= patience.unanswered && 10 * LONGEST <= patience.stalled, "{patience:?}");
    }
}
