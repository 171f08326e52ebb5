//! Handshakes that are under way when steering ends. Their SYNs were answered by our listeners, so closing these would reset
//! the clients.

use std::{collections::HashSet, io, sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    error::{blocking, failed},
    steered::{Life, Steered},
};
use crate::{
    control::Error,
    kernel,
    netns::{self, Ends},
};

/// How long they have to be finished. A client that takes longer is reset.
const GRACE: Duration = Duration::from_millis(100);

/// Between two looks at those that are not finished.
const PAUSE: Duration = Duration::from_millis(5);

/// Namespaces that are looked at at once. When many are let go of, the others wait for [`GRACE`], which costs nothing.
static LOOKS: Semaphore = Semaphore::const_new(4);

/// What was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// None was under way.
    None,
    /// Those that were are finished, or have been given up by their clients.
    Finished,
    /// Some are not finished.
    Late,
    /// Whether there are any cannot be told.
    Unknown,
    /// The namespace has been let go of.
    Aborted,
}

/// Waits until no handshake is under way any more that our listeners have answered, [`GRACE`] at most, or until the namespace is
/// let go of. The link is gone: there are no new ones.
pub(crate) async fn wait(netns: &Arc<Steered>) {
    let mut life = netns.life();
    let end = tokio::select! {
        end = finished(netns, Instant::now() + GRACE) => end,
        _ = life.wait_for(|life| *life == Life::Aborted) => End::Aborted,
    };
    tracing::debug!(netns = %netns.target, ?end, "handshakes under way");
}

async fn finished(netns: &Arc<Steered>, deadline: Instant) -> End {
    // A SYN that was steered just before may not have become one yet.
    let first = timeout_at(deadline, async {
        let _turn = LOOKS.acquire().await;
        look(netns, kernel::wait_for_packets).await
    });
    let Ok(first) = first.await else { return End::Unknown };
    let mut left = match first {
        Ok(first) if first.is_empty() => return End::None,
        Ok(first) => first,
        Err(error) => {
            tracing::warn!(netns = %netns.target, %error, "look for handshakes under way: waiting for any");
            sleep_until(deadline).await;
            return End::Unknown;
        }
    };
    tracing::debug!(netns = %netns.target, count = left.len(), "waiting for handshakes under way");
    while Instant::now() < deadline {
        sleep_until(deadline.min(Instant::now() + PAUSE)).await;
        // Those that have begun since then are the application's.
        match timeout_at(deadline, look(netns, || Ok(()))).await {
            Ok(Ok(now)) => left.retain(|one| now.contains(one)),
            Ok(Err(_)) | Err(_) => sleep_until(deadline).await,
        }
        if left.is_empty() {
            return End::Finished;
        }
    }
    End::Late
}

/// Those that may be ours: under a rule that leads to the relay, or did before. The application has its own.
async fn look(netns: &Arc<Steered>, wait: fn() -> io::Result<()>) -> Result<HashSet<Ends>, Error> {
    let netns = Arc::clone(netns);
    blocking(move || {
        let error = |error: &(dyn std::error::Error + 'static)| failed("look at", &netns.target, error);
        wait().map_err(|source| error(&source))?;
        let fd = netns.open().map_err(|source| error(&source))?;
        let found = netns::enter(&fd, netns::handshakes).and_then(|found| found);
        let published = netns.published.load();
        let is_ours = published.may_relay();
        Ok(found.map_err(|source| error(&source))?.into_iter().filter(is_ours).collect())
    })
    .await
}
