//! Listens to an engine, and has containers looked at that something happens to.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::looks::TargetLooks;
use crate::{
    config::{Container, Engine, Target},
    locate::{EngineError, Happened},
    reconcile::world::World,
    steer::backoff,
};

/// Between two looks at all containers, whatever the engine has told.
const TICK: Duration = Duration::from_secs(30);

/// Between tries to reach an engine: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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
        for target in followed(&world, engine, None) {
            world.intent().wait_because(&target, None, &why);
        }
        tokio::time::sleep(pauses.next().unwrap_or(PAUSES.1)).await;
    }
}

/// The containers of an engine that rules follow, as far as `what` may be about them.
fn followed(world: &World, engine: Engine, what: Option<&Happened>) -> BTreeSet<Target> {
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
    let mut looks = TargetLooks::new(world);
    let is_mine = |target: &Target| target.container().is_some_and(|one| one.engine == engine);
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
            () = looks.ended() => {}
        }
        // What happens meanwhile is heard: an engine does not wait for a listener that is slow.
        looks.begin(is_mine);
    }
}
