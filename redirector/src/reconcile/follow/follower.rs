//! Listens to an engine, and has containers looked at that something happens to.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use backon::ExponentialBackoff;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;

use super::catch_up::catch_up;
use crate::{
    config::{Container, Engine},
    locate::{EngineError, Happened},
    reconcile::world::World,
    steer::backoff,
};

/// Between two looks at all containers, whatever the engine has told.
const TICK: Duration = Duration::from_secs(30);

/// Containers that are looked at at once.
const LOOKS: usize = 8;

/// Between tries to reach an engine: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Between looks at a container whose rules cannot be put: first, and at most.
pub(crate) const RETRIES: (Duration, Duration) = (Duration::from_secs(1), TICK);

/// How listening to an engine ended.
enum Ended {
    /// Nothing of it is of interest.
    NotNeeded,
    /// It is gone, or was not there.
    Lost(Option<EngineError>),
}

/// Follows the containers of one engine until the daemon ends.
pub(crate) async fn follow(world: Arc<World>, engine: Engine) {
    let mut news = world.news.hear();
    let mut pauses = backoff(PAUSES);
    let mut is_lost = false;
    loop {
        while is_free_of(&world, engine) {
            if news.changed().await.is_err() {
                return;
            }
        }
        let begin = Instant::now();
        let mut heard = false;
        let Ended::Lost(error) = listen(&world, engine, &mut heard).await else { continue };
        // It told something, or could have for long enough.
        if heard || begin.elapsed() > PAUSES.1 {
            pauses = backoff(PAUSES);
            is_lost = false;
        }
        let why = error.map_or_else(|| format!("{engine} has ended"), |error| error.to_string());
        if !is_lost {
            tracing::warn!(why, "not told what happens to containers; trying again");
        }
        is_lost = true;
        world.discovery.look(engine);
        for container in followed(&world, engine, None) {
            world.intent().wait_because(&container, None, &why);
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSES.1)).await;
    }
}

/// The containers of an engine that rules follow, as far as `what` may be about them.
fn followed(world: &World, engine: Engine, what: Option<&Happened>) -> BTreeSet<Container> {
    let concerns =
        |container: &Container, id: Option<&_>| what.is_none_or(|what| what.concerns(container, id));
    world.intent().containers(engine, concerns)
}

/// Whether no rule follows a container of an engine, and none is looked for.
fn is_free_of(world: &World, engine: Engine) -> bool {
    !world.discovery.is_looking_at(engine) && followed(world, engine, None).is_empty()
}

/// Acts on what an engine tells. `heard` is set when it has told something.
async fn listen(world: &Arc<World>, engine: Engine, heard: &mut bool) -> Ended {
    let mut events = match world.opener.engines().events(engine).await {
        Ok(events) => events,
        Err(error) => return Ended::Lost(Some(error)),
    };
    let mut news = world.news.hear();
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut looks, mut busy) = (FuturesUnordered::new(), BTreeSet::<Container>::new());
    let (mut pauses, mut stuck) = (FuturesUnordered::new(), BTreeMap::<Container, Stuck>::new());
    let mut paused = 0_u64;
    loop {
        tokio::select! {
            event = events.next() => match event {
                None => return Ended::Lost(None),
                Some(Err(error)) => return Ended::Lost(Some(error)),
                Some(Ok(happened)) => {
                    *heard = true;
                    world.news.look_at(followed(world, engine, Some(&happened)));
                    world.discovery.look_after(engine, happened.id());
                }
            },
            _ = tick.tick() => {
                world.news.look_at(followed(world, engine, None));
                world.discovery.look(engine);
            }
            changed = news.changed() => {
                if changed.is_err() || is_free_of(world, engine) {
                    return Ended::NotNeeded;
                }
            }
            Some((container, is_settled)) = looks.next(), if !looks.is_empty() => {
                busy.remove(&container);
                if is_settled {
                    stuck.remove(&container);
                } else {
                    let stuck = stuck.entry(container.clone()).or_default();
                    // One pause at a time, however many looks there were.
                    if stuck.pause.is_none() {
                        paused += 1;
                        stuck.pause = Some(paused);
                        pauses.push(after(stuck.backoff.next().unwrap_or(TICK), container, paused));
                    }
                }
            }
            Some((container, pause)) = pauses.next(), if !pauses.is_empty() => {
                // It may have been settled meanwhile, and be stuck again.
                if let Some(stuck) = stuck.get_mut(&container).filter(|stuck| stuck.pause == Some(pause)) {
                    stuck.pause = None;
                    world.news.look_at([container]);
                }
            }
        }
        // What happens meanwhile is heard: an engine does not wait for a listener that is slow.
        while looks.len() < LOOKS
            && let Some(container) = world.news.next_due(engine, &busy)
        {
            busy.insert(container.clone());
            looks.push(look(Arc::clone(world), container));
        }
    }
}

/// Puts the rules of a container where it is. Gives whether all are in force, or wait for it.
async fn look(world: Arc<World>, container: Container) -> (Container, bool) {
    let looked = container.clone();
    // A task of its own: what has begun is done to its end, whatever becomes of the engine.
    let task = tokio::spawn(async move { catch_up(&world, &looked).await });
    (container, task.await.unwrap_or(false))
}

/// A container whose rules cannot be put.
struct Stuck {
    backoff: ExponentialBackoff,
    /// The number of the pause after which it is looked at again.
    pause: Option<u64>,
}

impl Default for Stuck {
    fn default() -> Self {
        Self { backoff: backoff(RETRIES), pause: None }
    }
}

async fn after(pause: Duration, container: Container, number: u64) -> (Container, u64) {
    tokio::time::sleep(pause).await;
    (container, number)
}
