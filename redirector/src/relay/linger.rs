//! Closing sockets that live in somebody else's namespace.
//!
//! A socket that is closed while data or its FIN is unacknowledged becomes an orphan of the kernel's, which
//! keeps the namespace alive until its retransmissions end: minutes, for a client that has vanished. So such a
//! socket is not closed but kept until all is acknowledged, and reset when that takes too long.

use std::{future::Future, os::fd::AsFd, time::Duration};

use socket2::SockRef;

use super::Stream;
use crate::sys::socket;

/// The longest that a socket is kept.
pub const LINGER_LIMIT: Duration = Duration::from_secs(30);

/// First and longest pause between two looks. An answer usually is there at the first look already.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// Closes a stream whose both directions have ended, when all it sent has been acknowledged. Resets it after
/// [`LINGER_LIMIT`], or when `give_up` is ready.
pub async fn linger(stream: Stream, give_up: impl Future<Output = ()>) {
    if !acknowledged(&stream, give_up).await {
        reset(stream);
    }
}

/// Resets a stream, but not before its peer has what was sent to it: resetting throws away what is not
/// acknowledged. Waits as [`linger()`] does.
pub async fn reset_after_last_words(stream: Stream, give_up: impl Future<Output = ()>) {
    acknowledged(&stream, give_up).await;
    reset(stream);
}

/// Whether the peer has acknowledged all within the limits.
async fn acknowledged(stream: &Stream, give_up: impl Future<Output = ()>) -> bool {
    let all = async {
        let mut pause = PAUSE.0;
        while !is_acknowledged(stream) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    };
    tokio::select! {
        biased;
        () = all => true,
        () = give_up => false,
        () = tokio::time::sleep(LINGER_LIMIT) => false,
    }
}

/// Whether closing leaves no orphan behind.
fn is_acknowledged(stream: &Stream) -> bool {
    let Stream::Tcp(stream) = stream else { return true };
    /// The first byte of `struct tcp_info` is the state; `TCP_CLOSE`, include/net/tcp_states.h.
    const CLOSE: u8 = 7;
    let state = socket::option::<u8>(stream.as_fd(), libc::IPPROTO_TCP, libc::TCP_INFO);
    state.is_ok_and(|state| state == CLOSE) || socket::unacknowledged(stream.as_fd()).unwrap_or(0) == 0
}

/// Closes a stream with RST, at once and without an orphan. A Unix stream is just closed.
pub fn reset(stream: Stream) {
    if let Stream::Tcp(_) = &stream
        && let Err(error) = SockRef::from(&stream).set_linger(Some(Duration::ZERO))
    {
        tracing::error!(%error, "setsockopt SO_LINGER");
    }
    drop(stream);
}
