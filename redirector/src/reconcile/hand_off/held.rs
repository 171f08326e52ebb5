//! A lease whose process has ended goes on with who holds its listeners: a server that was upgraded, or that puts itself in the
//! background.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;

use crate::{
    control::LeaseNews,
    lease::{GoesOn, Lease, LeasedSocket, Process, Queues, is_open},
    observe::RateLimit,
    reconcile::world::World,
    steer::Steered,
    text::chain,
};

/// Between two looks at the listeners of a lease that goes on; less when it is to be seen sooner that nobody accepts.
const LOOK: Duration = Duration::from_secs(2);

/// Looks at a queue before it is taken for one that nobody empties.
const LOOKS: u32 = 5;

/// Processes that end together with the one that has ended have so many moments for that, and so has the daemon's own duplicate.
const MOMENTS: u32 = 10;

/// One of them.
const MOMENT: Duration = Duration::from_millis(20);

/// Looks for holders of listeners that are open. One more, and whoever holds them cannot be seen.
const ATTEMPTS: u32 = 3;

/// Returns when the lease is over: nobody holds its listeners, or its rule is gone.
pub(super) async fn go_on(world: &World, netns: &Arc<Steered>, lease: &Arc<Lease>) {
    lease.tell_elsewhere_at_the_end();
    if lease.terms.goes_on == GoesOn::No {
        return;
    }
    let Some(holders) = holders(netns, lease).await else {
        if netns.is_steering() && lease.is_in_force(netns) {
            lease.tell(LeaseNews::Ended);
        }
        return;
    };
    let pids: Vec<i32> = holders.iter().map(|one| one.number()).collect();
    tracing::info!(netns = %netns.target, rule = %lease.rule.rule.name, ?pids, "the program has ended; the rule goes on with those who hold its listeners");
    lease.heirs.begin(holders);
    world.leases_ended.notify_one();
    lease.tell(LeaseNews::Held { pids });
    let limit = lease.terms.accept_within;
    let pause = if limit.is_zero() { LOOK } else { LOOK.min(limit / LOOKS).max(Duration::from_millis(10)) };
    let (mut queues, errors) = (Queues::default(), RateLimit::default());
    loop {
        sleep(pause).await;
        let open = open(netns, lease);
        if open.is_empty() {
            tracing::info!(netns = %netns.target, rule = %lease.rule.rule.name, "nobody holds the listeners any more");
            return;
        }
        if lease.heirs.has_lost_one() {
            world.leases_ended.notify_one();
        }
        lease.wait_for_share().await;
        // What is being changed is looked at the next time.
        let Some(_turn) = world.turns.try_of(netns.cookie) else { continue };
        if !netns.is_steering() || !lease.is_in_force(netns) {
            return;
        }
        if !limit.is_zero()
            && let Err(error) = lease.tend_queues(netns, &open, &mut queues).await
            && let Some(suppressed) = errors.pass()
        {
            let error = chain(&error);
            tracing::warn!(netns = %netns.target, rule = %lease.rule.rule.name, %error, suppressed, "look whether anybody accepts from listeners");
        }
    }
}

/// The listeners that are in slots, or were, and that anybody has open.
fn open(netns: &Steered, lease: &Lease) -> Vec<LeasedSocket> {
    let mut open = lease.in_slots();
    open.retain(|one| is_open(netns, one));
    open
}

/// Who holds the listeners, as far as that can be seen. `None`: nobody.
async fn holders(netns: &Steered, lease: &Lease) -> Option<Vec<Process>> {
    let is_over = || open(netns, lease).is_empty() || !netns.is_steering() || !lease.is_in_force(netns);
    for _ in 0..MOMENTS {
        if is_over() {
            return None;
        }
        sleep(MOMENT).await;
    }
    for attempt in 0..ATTEMPTS {
        sleep(MOMENT * attempt).await;
        if is_over() {
            return None;
        }
        match lease.look_for_holders(open(netns, lease)).await {
            Ok(found) if !found.is_empty() => return Some(found),
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(netns = %netns.target, rule = %lease.rule.rule.name, %error, "look for holders of listeners");
            }
        }
    }
    Some(Vec::new())
}
