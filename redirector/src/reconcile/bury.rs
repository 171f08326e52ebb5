//! A namespace that has lost its last process and mount: only our sockets keep it. Everything of it is let go of.

use std::{
    collections::{BTreeSet, HashSet},
    sync::atomic::Ordering,
};

use super::world::World;
use crate::{
    intent::Subject,
    locate,
    netns::NetnsFile,
    steer::{Life, Scope, Steered},
    sys,
};

/// Lets go of a namespace that has died.
pub(crate) async fn bury(world: &World, file: NetnsFile) {
    let steered = world.steered.with_file(file);
    let subjects: BTreeSet<_> = steered.iter().map(|netns| Subject::Netns(netns.cookie)).collect();
    let turn = world.turns.take(Scope::These(subjects)).await;
    // The verdict may be about a namespace that was detached meanwhile, and the inode another one's by now.
    let again = sys::blocking::blocking(move || locate::find(&HashSet::from([file]))).await;
    if !again.is_ok_and(|found| found.is_ok_and(|found| found.witnesses.is_empty())) {
        world.maker.watch.add(file);
        return;
    }
    let steered = steered.into_iter().filter(|netns| world.steered.has(netns));
    let dead: Vec<_> = steered.chain(world.draining.take(file)).collect();
    // In its turn: what is made for a lease from here on sees it, and is undone by whoever makes it.
    dead.iter().for_each(|netns| netns.stop_steering(Life::Aborted));
    let leases: Vec<_> = dead.iter().flat_map(|netns| world.leases.bury(netns)).collect();
    for netns in &dead {
        if world.steered.has(netns) {
            world.steered.remove(netns.cookie);
        }
        world.maker.selves.remove(netns.cookie);
        let waiting = world.intent().bury(netns.cookie);
        for container in &waiting {
            tracing::info!(target = %container, "its rules wait until the container runs again");
        }
        world.news.look_at(waiting);
    }
    if world.remotes.bury(file) {
        tracing::info!(
            inode = file.inode,
            "the namespace of a destination has lost its last process and mount"
        );
        world.steered.all().iter().for_each(Steered::take_down_gone);
    }
    world.maker.watch.remove(file);
    drop(turn);
    // Beside all else: it takes as long as there are processes and files.
    tokio::spawn(async move {
        for lease in leases {
            lease.revoke().await;
        }
    });
    for netns in dead {
        let connections = netns.connections.active.load(Ordering::Relaxed);
        netns.abort().await;
        tracing::info!(
            netns = %netns.target, cookie = %netns.cookie, connections,
            "the namespace has lost its last process and mount; let go of it"
        );
    }
}
