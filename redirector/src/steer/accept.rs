//! The accept loops, and what brings a listener back that was killed from inside.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use super::{
    connection, slots,
    steered::{Life, Steered},
};
use crate::{
    listener::{self, AcceptEnd, Listener},
    observe::{NotDelivered, RateLimit},
    sys::SyscallError,
};

/// The pause before a listener is revived again that was killed a moment ago, and after a failed revival.
const PAUSE: Duration = Duration::from_millis(200);

/// Accepts from one listener until the namespace is left.
pub(crate) async fn accept(netns: Arc<Steered>, listener: Arc<Listener>) {
    let mut revived: Option<Instant> = None;
    let said = RateLimit::default();
    loop {
        let socket = listener.get();
        let address = socket.local_addr().ok();
        let take = |stream: TcpStream, peer: SocketAddr| connection::take(&netns, address, stream, peer);
        let exhausted = |error: &io::Error| {
            netns.connections.accept_exhausted.fetch_add(1, Ordering::Relaxed);
            if let Some(suppressed) = netns.log_limit(NotDelivered::OutOfSockets).pass() {
                tracing::warn!(netns = %netns.target, %error, suppressed, "accept; trying again in a moment");
            }
        };
        let mut life = netns.life();
        let left = async {
            drop(life.wait_for(|life| *life != Life::Steering).await);
        };
        match listener::accept_until(&socket, left, take, exhausted).await {
            AcceptEnd::Stopped => {
                if *netns.life().borrow() == Life::Detached {
                    let over = netns.handshakes_over();
                    listener::accept_until(&socket, over, take, exhausted).await;
                }
                if !netns.is_aborted() {
                    listener::accept_ready(&socket, take);
                }
                return;
            }
            AcceptEnd::Fatal(error) => {
                drop(socket);
                if let Some(suppressed) = said.pass() {
                    tracing::warn!(
                        netns = %netns.target, family = %listener.family(), %error, suppressed,
                        "the listener was killed from inside; reviving it"
                    );
                }
            }
        }
        if revived.is_some_and(|last| last.elapsed() < PAUSE) {
            tokio::time::sleep(PAUSE).await;
        }
        while let Err(error) = revive(&netns, &listener) {
            if *netns.life().borrow() != Life::Steering {
                return;
            }
            if let Some(suppressed) = said.pass() {
                let error = crate::text::chain(&error);
                tracing::error!(netns = %netns.target, family = %listener.family(), error, suppressed, "revive the listener");
            }
            tokio::time::sleep(PAUSE).await;
        }
        revived = Some(Instant::now());
    }
}

/// Back to `LISTEN`, and back into the slot.
fn revive(netns: &Steered, listener: &Listener) -> Result<(), SyscallError> {
    listener.revive()?;
    slots::fill(&netns.instance, listener)?;
    Steered::count_mended(&netns.listeners_revived, 1);
    Ok(())
}
