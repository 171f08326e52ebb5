//! How the rule of a hand-off ends: nobody holds its listeners any more, or its program never got them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    intent::Edit,
    lease::{Lease, Looks, Remaining, sweep},
    reconcile::{
        leave::take_out,
        part::{Part, Plan},
        standing::Standing,
        world::World,
    },
    steer::{Steered, slots},
};

/// Between two looks at who still holds listeners of leases that have ended.
const SWEEP: Duration = Duration::from_secs(10);

/// The same when leases go on with who holds their listeners, which `list` shows.
const SWEEP_GOING_ON: Duration = Duration::from_secs(2);

/// The same when the look before did not see everybody.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// Between two tries to take back a rule whose lease has ended, the first and the longest: what stands in the way may last.
const TAKE_BACK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// When it is time to try again to take back what could not be taken back.
struct NextTry {
    at: Instant,
    pause: Duration,
}

/// Takes a lease's rule away; steering ends when it was the last.
pub(super) async fn end_lease(world: &World, netns: &Arc<Steered>, lease: &Arc<Lease>) {
    lease.end();
    world.leases.bound_ended(netns);
    world.leases_ended.notify_one();
    take_back(world, netns, lease).await;
    if !netns.is_aborted() {
        // Else who holds its listeners is ended first.
        lease.tell_no_more();
    }
}

/// Takes the rule of a lease that has ended out of force, and empties its slots. Whether the rule is out.
async fn take_back(world: &World, netns: &Arc<Steered>, lease: &Lease) -> bool {
    let _turn = world.turns.of(netns.cookie).await;
    if !lease.is_in_force(netns) {
        return true;
    }
    let name = &lease.rule.rule.name;
    let mut is_out = true;
    if world.steered.has(netns) {
        let mut edit = Edit::default();
        edit.drop(netns.cookie, name);
        let part = Part::without(&Standing::from(netns), std::slice::from_ref(name));
        match take_out(world, Plan { parts: vec![part], edit }).await {
            Ok(()) => tracing::info!(netns = %netns.target, rule = %name, "the lease has ended"),
            Err(error) => {
                tracing::error!(
                    netns = %netns.target, rule = %name, %error,
                    "end the lease; the rule's on_unavailable decides until it can be taken back"
                );
                is_out = false;
            }
        }
    }
    // Who shares the receiver's listeners may still hold them: they must not get a later consumer's traffic.
    slots::empty_consumer(&netns.instance, lease.rule.consumer);
    is_out
}

/// Tries again to take back the rules of leases that have ended. `None`: there are none.
async fn take_back_again(world: &World, before: Option<NextTry>) -> Option<NextTry> {
    if before.as_ref().is_some_and(|next| next.at > Instant::now()) {
        return before;
    }
    let ended = world.leases.ended();
    if ended.is_empty() {
        return None;
    }
    let mut is_left = false;
    for (netns, lease) in &ended {
        is_left |= !take_back(world, netns, lease).await;
    }
    let pause = before.map_or(TAKE_BACK.0, |before| (before.pause * 2).min(TAKE_BACK.1));
    is_left.then(|| NextTry { at: Instant::now() + pause, pause })
}

/// Forgets leases that have ended, when nobody holds their listeners any more, and takes back what could not be taken back. Runs
/// for as long as the daemon.
pub(crate) async fn end_leases(world: Arc<World>) {
    let (looks, mut next_try) = (Looks::default(), None);
    loop {
        next_try = take_back_again(&world, next_try).await;
        looks.turn().await;
        let left = sweep(&world.leases, &looks).await;
        let ended = world.leases_ended.notified();
        let look_again = match left {
            Remaining::Nothing => None,
            Remaining::Held => Some(SWEEP),
            Remaining::GoesOn => Some(SWEEP_GOING_ON),
            Remaining::Unseen => Some(SWEEP_AGAIN),
        };
        let try_again = next_try.as_ref().map(|next| next.at.saturating_duration_since(Instant::now()));
        match look_again.into_iter().chain(try_again).min() {
            None => ended.await,
            Some(pause) => drop(tokio::time::timeout(pause, ended).await),
        }
    }
}
