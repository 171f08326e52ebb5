//! What rules need of us in their namespace, and no more: whoever is steered can hold its ports, so rules that need none must
//! not ask for any. Sockets are made before the rules come into force, and go when no rule needs them any more.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use super::{
    accept,
    black_hole::Alarm,
    error::{blocking, failed},
    files::Files,
    rules::Needs,
    slots,
    steered::{Life, Steered},
};
use crate::{control::Error, listener::Search, observe::RateLimit, sys::bpf::LinkInfo, text::chain};

/// The pause before a socket of `drop` is revived again that was killed a moment ago.
const PAUSE: Duration = Duration::from_millis(10);

/// Makes what is needed and is not there yet. What no rule in force needs stays until [`settle`].
///
/// # Errors
///
/// When it cannot be made there.
pub(crate) async fn make_sockets(netns: &Arc<Steered>, fd: OwnedFd, needs: Needs) -> Result<(), Error> {
    make_sockets_with(Search::Every, netns, fd, needs).await
}

async fn make_sockets_with(
    search: Search,
    netns: &Arc<Steered>,
    fd: OwnedFd,
    needs: Needs,
) -> Result<(), Error> {
    let made = Arc::clone(netns);
    blocking(move || {
        let (cookie, target, instance) = (made.cookie, &made.target, &made.instance);
        if needs.relay {
            made.relay().make((&fd, cookie, target), instance)?;
        }
        let mut black_hole = made.black_hole.lock().unwrap_or_else(PoisonError::into_inner);
        black_hole.make((&needs.black_hole, search), (&fd, cookie, target), instance)
    })
    .await?;
    watch_black_hole(netns);
    Ok(())
}

/// Rules have come into force, or could not: what they need is used from now on, and what none needs goes.
pub(crate) fn settle(netns: &Arc<Steered>) {
    let needs = netns.published.load().current.needs();
    let of_black_hole = if needs.black_hole.is_empty() { 0 } else { Files::OF_BLACK_HOLE };
    netns.share.set_files(Files::OF_NAMESPACE + of_black_hole);
    let mut black_hole = netns.black_hole.lock().unwrap_or_else(PoisonError::into_inner);
    black_hole.keep(&needs.black_hole, &netns.instance);
    drop(black_hole);
    for listener in netns.relay().settle(|| needs.relay) {
        netns.acceptors.spawn(accept::accept(Arc::clone(netns), Arc::clone(listener)));
    }
}

/// Makes what a rule in force needs and had no port, where it is time for another try. That is a cheap one: who holds all
/// ports must not keep us busy.
///
/// # Errors
///
/// When it cannot be made there.
pub(crate) async fn complete_black_hole(netns: &Arc<Steered>) -> Result<(), Error> {
    if !netns.black_hole.lock().unwrap_or_else(PoisonError::into_inner).is_due() {
        return Ok(());
    }
    let fd = netns.open().map_err(|error| failed("open", &netns.target, &error))?;
    make_sockets_with(Search::Few, netns, fd, netns.published.load().current.needs()).await
}

/// Has what `drop` leads to revived as soon as it is killed.
fn watch_black_hole(netns: &Arc<Steered>) {
    let mut black_hole = netns.black_hole.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(alarm) = black_hole.unwatched() {
        netns.acceptors.spawn(watch(Arc::clone(netns), alarm));
    }
}

/// Revives what is killed, until the namespace is left.
async fn watch(netns: Arc<Steered>, alarm: Arc<Alarm>) {
    let said = RateLimit::default();
    let mut life = netns.life();
    let left = async {
        drop(life.wait_for(|life| *life != Life::Steering).await);
    };
    let revive = async {
        let mut revived: Option<Instant> = None;
        while alarm.raised().await.is_ok() {
            if revived.is_some_and(|last| last.elapsed() < PAUSE) {
                tokio::time::sleep(PAUSE).await;
            }
            mend_black_hole(&netns, &said);
            revived = Some(Instant::now());
        }
    };
    tokio::select! {
        () = left => {}
        () = alarm.over.cancelled() => {}
        // Without it they are mended less often.
        () = revive => tracing::error!(netns = %netns.target, "wait for the death of what `drop` leads to"),
    }
}

/// Puts the link back that somebody has detached. Whether there was one: where the namespace is gone nothing can be put back.
/// Who calls has the namespace's turn.
pub(crate) fn mend_link(netns: &Steered) -> bool {
    let is_detached = |info: Result<LinkInfo, _>| info.is_ok_and(|info| info.netns_inode == 0);
    if !netns.is_steering() || !netns.instance.link_info().is_some_and(is_detached) {
        return false;
    }
    let attached = netns
        .open()
        .map_err(|error| chain(&error))
        .and_then(|fd| netns.instance.attach(fd.as_fd()).map_err(|error| chain(&error)));
    if let Err(error) = attached {
        tracing::error!(netns = %netns.target, error, "put back a link that somebody has detached");
        return false;
    }
    if !netns.is_steering() {
        // The daemon ends, and waits for nobody's turn any more.
        netns.instance.detach();
        return false;
    }
    Steered::count_mended(&netns.links_restored, 1);
    tracing::warn!(netns = %netns.target, "somebody has detached our program; attached it again");
    true
}

/// Puts our listeners back where something else is, and the link. One of the relay's that does not listen is its accept loop's.
pub(crate) fn mend(netns: &Steered) {
    mend_link(netns);
    for listener in netns.listeners() {
        // One that was killed is in its slot still.
        if slots::is_in_slot(&netns.instance, &listener) || !listener.is_listening() {
            continue;
        }
        match slots::fill(&netns.instance, &listener) {
            Ok(()) => {
                Steered::count_mended(&netns.slots_restored, 1);
                tracing::warn!(netns = %netns.target, family = %listener.family(), "restored a listener's slot");
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(netns = %netns.target, family = %listener.family(), error, "restore a listener's slot");
            }
        }
    }
    mend_black_hole(netns, &RateLimit::default());
}

/// Puts back what `drop` leads to, where it was killed or pushed out of its slot.
fn mend_black_hole(netns: &Steered, said: &RateLimit) {
    let mended = netns.black_hole.lock().unwrap_or_else(PoisonError::into_inner).mend(&netns.instance);
    match mended {
        Ok((0, 0)) => {}
        Ok((revived, restored)) => {
            Steered::count_mended(&netns.listeners_revived, revived);
            Steered::count_mended(&netns.slots_restored, restored);
            if let Some(suppressed) = said.pass() {
                tracing::warn!(netns = %netns.target, revived, restored, suppressed, "mended what `drop` leads to");
            }
        }
        Err(error) => {
            if let Some(suppressed) = said.pass() {
                let error = chain(&error);
                tracing::error!(netns = %netns.target, error, suppressed, "mend what `drop` leads to");
            }
        }
    }
}
