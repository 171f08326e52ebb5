//! TargetLooks at targets, as many at once as may be. Those whose rules cannot be put are looked at again after a pause.

use std::{
    collections::{BTreeMap, BTreeSet},
    future,
    sync::Arc,
    time::Duration,
};

use backon::ExponentialBackoff;
use futures_util::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};

use super::catch_up::catch_up;
use crate::{config::Target, reconcile::world::World, steer::backoff};

/// Targets that one follower looks at at once.
const AT_ONCE: usize = 8;

/// Between looks at a target whose rules cannot be put: first, and at most.
pub(crate) const RETRIES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The looks of one follower.
pub(super) struct TargetLooks {
    world: Arc<World>,
    looks: FuturesUnordered<BoxFuture<'static, (Target, bool)>>,
    busy: BTreeSet<Target>,
    pauses: FuturesUnordered<BoxFuture<'static, (Target, u64)>>,
    stuck: BTreeMap<Target, Stuck>,
    paused: u64,
}

/// A target whose rules cannot be put.
struct Stuck {
    backoff: ExponentialBackoff,
    /// The number of the pause after which it is looked at again.
    pause: Option<u64>,
}

impl TargetLooks {
    pub(super) fn new(world: &Arc<World>) -> Self {
        Self {
            world: Arc::clone(world),
            looks: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            pauses: FuturesUnordered::new(),
            stuck: BTreeMap::new(),
            paused: 0,
        }
    }

    /// Begins with those of the follower's targets that are due.
    pub(super) fn begin(&mut self, is_mine: impl Fn(&Target) -> bool) {
        while self.looks.len() < AT_ONCE
            && let Some(target) = self.world.news.next_due(&is_mine, &self.busy)
        {
            self.busy.insert(target.clone());
            self.looks.push(Box::pin(look(Arc::clone(&self.world), target)));
        }
    }

    /// Whether its rules could not be put.
    pub(super) fn is_stuck(&self, target: &Target) -> bool {
        self.stuck.contains_key(target)
    }

    /// Waits until a look or a pause has ended. What is to be looked at again is due then.
    pub(super) async fn ended(&mut self) {
        tokio::select! {
            Some((target, is_settled)) = self.looks.next(), if !self.looks.is_empty() => {
                self.busy.remove(&target);
                if is_settled {
                    self.stuck.remove(&target);
                } else {
                    self.pause(target);
                }
            }
            Some((target, pause)) = self.pauses.next(), if !self.pauses.is_empty() => {
                // It may have been settled meanwhile, and be stuck again.
                if let Some(stuck) = self.stuck.get_mut(&target).filter(|stuck| stuck.pause == Some(pause)) {
                    stuck.pause = None;
                    self.world.news.look_at([target]);
                }
            }
            else => future::pending().await,
        }
    }

    fn pause(&mut self, target: Target) {
        let stuck = self.stuck.entry(target.clone()).or_default();
        // One pause at a time, however many looks there were.
        if stuck.pause.is_none() {
            self.paused += 1;
            stuck.pause = Some(self.paused);
            let pause = stuck.backoff.next().unwrap_or(RETRIES.1);
            self.pauses.push(Box::pin(after(pause, target, self.paused)));
        }
    }
}

/// Puts the rules of a target where it leads. Gives whether all are in force, or wait for it.
async fn look(world: Arc<World>, target: Target) -> (Target, bool) {
    let looked = target.clone();
    // A task of its own: what has begun is done to its end, whatever becomes of who tells.
    let task = tokio::spawn(async move { catch_up(&world, &looked).await });
    (target, task.await.unwrap_or(false))
}

impl Default for Stuck {
    fn default() -> Self {
        Self { backoff: backoff(RETRIES), pause: None }
    }
}

async fn after(pause: Duration, target: Target, number: u64) -> (Target, u64) {
    tokio::time::sleep(pause).await;
    (target, number)
}
