//! The accept loops, and what brings a listener back that was killed from inside.

use std::{
    io,
    net::SocketAddr,
    os::fd::AsFd as _,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use super::{
    connection,
    namespace::{Life, Namespace},
};
use crate::{
    listener::{self, AcceptEnd, Listener},
    netns, sys,
};

/// The pause before a listener is revived again that was killed a moment ago, and after a failed revival.
const PAUSE: Duration = Duration::from_millis(200);

/// Accepts from one listener until the namespace is left.
pub(super) async fn accept(netns: Arc<Namespace>, listener: Arc<Listener>) {
    let mut revived: Option<Instant> = None;
    loop {
        let socket = listener.get();
        let address = socket.local_addr().ok();
        let take = |stream: TcpStream, peer: SocketAddr| connection::take(&netns, address, stream, peer);
        let exhausted = |error: &io::Error| {
            netns.connections.accept_exhausted.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(netns = %netns.target, %error, "accept; trying again in a moment");
        };
        let mut life = netns.life();
        let left = async {
            drop(life.wait_for(|life| *life != Life::Steering).await);
        };
        match listener::accept_until(&socket, left, take, exhausted).await {
            AcceptEnd::Stopped => {
                if *netns.life().borrow() == Life::Detached {
                    listener::accept_all(&socket, take).await;
                }
                return;
            }
            AcceptEnd::Fatal(error) => {
                drop(socket);
                tracing::warn!(
                    netns = %netns.target, family = %listener.family(), %error,
                    "the listener was killed from inside; reviving it"
                );
            }
        }
        if revived.is_some_and(|last| last.elapsed() < PAUSE) {
            tokio::time::sleep(PAUSE).await;
        }
        while let Err(error) = revive(&netns, &listener).await {
            if *netns.life().borrow() != Life::Steering {
                return;
            }
            tracing::error!(netns = %netns.target, family = %listener.family(), %error, "revive the listener");
            tokio::time::sleep(PAUSE).await;
        }
        revived = Some(Instant::now());
    }
}

/// Back to `LISTEN`, on the same address or on another, and back into the slot.
async fn revive(netns: &Arc<Namespace>, listener: &Arc<Listener>) -> anyhow::Result<()> {
    if listener.revive().is_err() {
        // Somebody has taken its address: a new one then.
        let family = listener.family();
        let file = sys::namespace::netns_of((*listener.get()).as_fd())?;
        let made = tokio::task::spawn_blocking(move || netns::enter(&file, || listener::bind(family)));
        let socket = made.await???;
        let (_, cookie) = listener::cookies(socket.as_fd())?;
        anyhow::ensure!(cookie == netns.cookie, "the new listener is in another namespace");
        listener.replace(socket)?;
    }
    netns.fill_slot(listener)?;
    Namespace::count_mended(&netns.listeners_revived);
    Ok(())
}
