//! The end: nothing is steered any more, and what is relayed is waited for.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use crate::{
    reconcile::World,
    steer::{How, Scope, Steered},
};

/// Stops steering everything at once, waits for the relayed connections, and resets those that are left
/// when `deadline` is ready, also where a change has not ended by then.
pub(super) async fn drain(world: &World, deadline: impl Future<Output = ()>) {
    world.ending.store(true, Ordering::Relaxed);
    let mut deadline = pin!(deadline);
    let changed = tokio::select! {
        biased;
        turn = world.turns.take(Scope::All) => Some(turn),
        () = &mut deadline => None,
    };
    let Some(turn) = changed else {
        tracing::warn!("a change has not ended at the drain deadline");
        return reset(world.maker.all.living()).await;
    };
    let mut ends = Vec::new();
    for netns in world.steered.drain() {
        ends.push(netns.end(How::Detach));
        world.draining.push(&netns);
    }
    drop(turn);
    let left = world.draining.all();
    let ended = async {
        for end in ends {
            end.await;
        }
        let waiting: usize = left.iter().map(|netns| netns.tasks.len()).sum();
        if waiting > 0 {
            tracing::info!(connections = waiting, "waiting for relayed connections to end");
        }
        for netns in &left {
            netns.tasks.wait().await;
        }
    };
    tokio::select! {
        biased;
        () = ended => {}
        () = deadline => reset(left.clone()).await,
    }
}

/// Lets go of all of them at once.
async fn reset(left: Vec<Arc<Steered>>) {
    let counts: Vec<_> = left.iter().map(|netns| netns.tasks.len()).collect();
    let ends: Vec<_> = left.iter().map(|netns| netns.end(How::Abort)).collect();
    for ((netns, end), connections) in left.iter().zip(ends).zip(counts) {
        end.await;
        if connections > 0 {
            tracing::warn!(netns = %netns.target, connections, "reset at the drain deadline");
        }
    }
}
