//! Leases that have ended, and whose listeners somebody may still hold: they keep the namespace, so they are wanted when it dies.

use std::collections::HashSet;

use super::{
    holders::{Coverage, held},
    leased::LeasedSocket,
    looks::Looks,
    registry::Registry,
};

/// What a look at leases that have ended has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remaining {
    Nothing,
    /// Listeners that somebody holds.
    Held,
    /// Listeners of which it is not known whether somebody holds them.
    Unseen,
}

/// Forgets leases that have ended, when nobody holds their listeners any more. One look for all of them, and in nobody's turn.
pub(crate) async fn sweep(leases: &Registry, looks: &Looks) -> Remaining {
    let ended = leases.ended();
    let sockets: Vec<LeasedSocket> = ended.iter().flat_map(|(_, lease)| lease.listeners()).collect();
    let asked: HashSet<u64> = sockets.iter().map(|one| one.cookie).collect();
    if sockets.is_empty() {
        ended.iter().for_each(|(netns, lease)| leases.forget(netns, lease));
        return Remaining::Nothing;
    }
    let (held, seen) = match looks.look(&[], move |aside, _| held(aside, &sockets)).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "look for holders of listeners whose lease has ended");
            return Remaining::Unseen;
        }
    };
    let mut left = Remaining::Nothing;
    for (netns, lease) in ended {
        let listeners = lease.listeners();
        if listeners.iter().any(|one| held.contains(&one.cookie) || !asked.contains(&one.cookie)) {
            left = Remaining::Held;
        } else if seen == Coverage::All {
            leases.forget(&netns, &lease);
        }
    }
    if seen == Coverage::Part { Remaining::Unseen } else { left }
}
