//! Namespaces that have lost their last process and mount: only our sockets keep them. Everything of them is let go of.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::join_all;

use super::world::World;
use crate::{
    locate::Died,
    netns::{NetnsCookie, NetnsFile},
    steer::{How, Steered},
};

/// Lets go of all namespaces that have died.
pub(crate) async fn bury(world: &World, died: &Died) {
    let remotes = world.remotes.bury(died);
    for NetnsFile { inode, .. } in &remotes {
        tracing::info!(inode, "the namespace of a destination has lost its last process and mount");
    }
    if !remotes.is_empty() {
        world.steered.all().iter().for_each(Steered::take_down_gone);
    }
    // One that is just being made is not in the table yet.
    let mut dead = BTreeMap::<_, Vec<_>>::new();
    for netns in world.maker.all.living().into_iter().filter(|netns| died.has(&netns.watched)) {
        dead.entry(netns.cookie).or_default().push(netns);
    }
    // One that waits for a change there keeps no other waiting.
    join_all(dead.into_iter().map(|(cookie, dead)| let_go(world, cookie, dead))).await;
}

/// Lets go of one namespace: as it is steered, and as it was before it was detached.
async fn let_go(world: &World, cookie: NetnsCookie, mut dead: Vec<Arc<Steered>>) {
    let turn = world.turns.of(cookie).await;
    // What was let go of meanwhile is nowhere any more.
    dead.retain(|netns| world.steered.has(netns) || world.draining.take(netns));
    // In its turn: what is made for a lease from here on sees it, and is undone by whoever makes it.
    let ends: Vec<_> = dead.iter().map(|netns| netns.end(How::Abort)).collect();
    let leases: Vec<_> = dead.iter().flat_map(|netns| world.leases.bury(netns)).collect();
    for netns in &dead {
        if world.steered.has(netns) {
            world.steered.remove(netns.cookie);
        }
        if world.steered.get(netns.cookie).is_some() {
            // It was named, and steered, again since this one was let go of.
            continue;
        }
        world.maker.selves.remove(netns.cookie);
        let waiting = world.intent().bury(netns.cookie);
        for target in &waiting {
            tracing::info!(%target, "its rules wait until it is there again");
        }
        world.news.look_at(waiting);
    }
    drop(turn);
    // Beside all else: it takes as long as there are processes and files.
    tokio::spawn(async move {
        for lease in leases {
            lease.revoke().await;
        }
    });
    for (netns, end) in dead.into_iter().zip(ends) {
        let connections = netns.connections.active.load(Ordering::Relaxed);
        end.await;
        tracing::info!(
            netns = %netns.target, cookie = %netns.cookie, connections,
            "the namespace has lost its last process and mount; let go of it"
        );
    }
}
