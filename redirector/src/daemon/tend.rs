//! What the daemon does by itself: lets go of dead namespaces, mends drift, takes rules down and up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;

use crate::{
    locate::Died,
    reconcile::{World, bury, until_up},
    steer::{Steered, WentDown, expire, interfaces, mend},
    sys::memory,
    text::chain,
};

/// How often what should be is compared with what is.
const LOOK: Duration = Duration::from_secs(2);

/// Events that it acts on.
#[derive(Debug)]
pub(super) struct Events {
    /// Set by whoever asks for something.
    pub(super) asked: Arc<AtomicBool>,
    pub(super) deaths: mpsc::UnboundedReceiver<Died>,
    pub(super) went_down: mpsc::UnboundedReceiver<WentDown>,
}

/// Acts on events until the daemon ends.
pub(super) async fn tend(world: Arc<World>, mut events: Events) {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_asked = true;
    loop {
        tokio::select! {
            Some(died) = events.deaths.recv() => {
                let world = Arc::clone(&world);
                // Where a change is under way it waits for that.
                tokio::spawn(async move { bury(&world, &died).await });
            }
            Some(event) = events.went_down.recv() => {
                tokio::spawn(until_up(Arc::clone(&world), event));
            }
            _ = tick.tick() => {
                look_around(&world).await;
                // Not while somebody asks again and again: it would be taken again.
                let is_asked = events.asked.swap(false, Ordering::Relaxed);
                if std::mem::replace(&mut was_asked, is_asked) && !is_asked {
                    tokio::task::spawn_blocking(memory::give_back);
                }
            }
        }
    }
}

async fn look_around(world: &World) {
    let steered = world.steered.all();
    for netns in &steered {
        tend_one(world, netns).await;
    }
    world.names.note_used(|note| {
        for netns in &steered {
            netns.published.load().current.names().for_each(&mut *note);
        }
    });
    world.draining.forget_done(|netns| world.leases.has(netns));
}

/// One namespace, in its turn. One that is being changed is looked at the next time.
async fn tend_one(world: &World, netns: &Arc<Steered>) {
    let Some(_turn) = world.turns.try_of(netns.cookie).filter(|_| world.steered.has(netns)) else { return };
    mend(netns);
    expire(netns);
    if netns.published.load().current.names_interfaces()
        && let Err(error) = interfaces::follow(netns).await
    {
        let error = chain(&error);
        tracing::error!(netns = %netns.target, error, "look at the interfaces");
    }
}
