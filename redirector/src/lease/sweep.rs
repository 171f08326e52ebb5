//! Looks for the holders of listeners whose process has ended: of leases that are over, because those keep the namespace and so
//! are wanted when it dies; and of those that go on, to tell who they are.

use std::collections::HashSet;

use super::{
    held::in_order,
    holders::{Coverage, held, holders_of},
    leased::LeasedSocket,
    looks::Looks,
    registry::Registry,
};

/// What a look has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remaining {
    Nothing,
    /// Listeners of leases that are over, which somebody holds.
    Held,
    /// Leases that go on with who holds the listeners.
    GoesOn,
    /// Listeners of which it is not known whether somebody holds them.
    Unseen,
}

/// Forgets leases that are over when nobody holds their listeners any more, and notes who holds those of leases that go on. One
/// look for all of them, and in nobody's turn.
pub(crate) async fn sweep(leases: &Registry, looks: &Looks) -> Remaining {
    let (ended, going_on) = (leases.ended(), leases.held());
    let of_ended = ended.iter().flat_map(|(_, lease)| lease.listeners());
    let of_others = going_on.iter().flat_map(|lease| lease.listeners());
    let sockets: Vec<LeasedSocket> = of_ended.chain(of_others).collect();
    let asked: HashSet<u64> = sockets.iter().map(|one| one.cookie).collect();
    if sockets.is_empty() {
        ended.iter().for_each(|(netns, lease)| leases.forget(netns, lease));
        return Remaining::Nothing;
    }
    let is_all_wanted = !going_on.is_empty();
    let look = looks.look(&[], move |aside, _| {
        if is_all_wanted {
            return holders_of(aside, &sockets);
        }
        let (held, seen) = held(aside, &sockets);
        (held.into_iter().map(|cookie| (cookie, Vec::new())).collect(), seen)
    });
    let (held, seen) = match look.await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "look for holders of listeners whose lease has ended");
            return Remaining::Unseen;
        }
    };
    let mut left = Remaining::Nothing;
    for (netns, lease) in ended {
        let listeners = lease.listeners();
        if listeners.iter().any(|one| held.contains_key(&one.cookie) || !asked.contains(&one.cookie)) {
            left = Remaining::Held;
        } else if seen == Coverage::All {
            leases.forget(&netns, &lease);
        }
    }
    for lease in &going_on {
        let listeners = lease.listeners();
        let theirs = listeners.iter().filter_map(|one| held.get(&one.cookie)).flatten();
        lease.heirs.renew(in_order(theirs.copied()));
    }
    match seen {
        _ if is_all_wanted => Remaining::GoesOn,
        Coverage::Part => Remaining::Unseen,
        Coverage::All => left,
    }
}
