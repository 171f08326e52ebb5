//! Looks where followed containers are, when their engine says that something happened to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::Instant;

use super::{Follow, Followed, Supervisor};
use crate::{
    config::{Container, Engine, Target},
    control::Caller,
    locate::EngineError,
    supervisor::{
        attach::{How, Wanted},
        opening::Missing,
    },
    text::chain,
};

/// Between two looks at all containers, whatever the engine has told.
const TICK: Duration = Duration::from_secs(30);

/// Containers that are looked at at once.
const LOOKS: usize = 8;

/// Between tries to reach an engine: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Between looks at a container whose rules cannot be put: first, and at most.
pub(in crate::supervisor) const RETRIES: (Duration, Duration) = (Duration::from_secs(1), TICK);

/// Pauses that grow from the first to the longest, and do not end.
pub(in crate::supervisor) fn backoff((first, most): (Duration, Duration)) -> ExponentialBackoff {
    let builder = ExponentialBuilder::default().with_min_delay(first).with_max_delay(most);
    builder.without_max_times().with_jitter().build()
}

/// How listening to an engine ended.
enum Ended {
    /// Nothing of it is of interest.
    NotNeeded,
    /// It is gone, or was not there.
    Lost(Option<EngineError>),
}

impl Supervisor {
    /// Follows the containers of one engine until the daemon ends.
    pub(in crate::supervisor) async fn follow(self: Arc<Self>, engine: Engine) {
        let mut news = self.follows.news();
        let mut pauses = backoff(PAUSES);
        let mut is_lost = false;
        loop {
            while self.is_free_of(engine) {
                if news.changed().await.is_err() {
                    return;
                }
            }
            let begin = Instant::now();
            let mut heard = false;
            let Ended::Lost(error) = self.listen(engine, &mut heard).await else { continue };
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
            self.discovery.look(engine);
            for container in self.follows.of_engine(engine, None) {
                self.follows.wait_because(&container, None, &why);
            }
            tokio::time::sleep(pauses.next().unwrap_or(PAUSES.1)).await;
        }
    }

    /// Whether no rule follows a container of an engine, and none is looked for.
    fn is_free_of(&self, engine: Engine) -> bool {
        self.follows.of_engine(engine, None).is_empty() && !self.discovery.is_looking_at(engine)
    }

    /// Acts on what an engine tells. `heard` is set when it has told something.
    async fn listen(self: &Arc<Self>, engine: Engine, heard: &mut bool) -> Ended {
        let mut events = match self.opener.engines().events(engine).await {
            Ok(events) => events,
            Err(error) => return Ended::Lost(Some(error)),
        };
        let mut news = self.follows.news();
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
                        self.follows.look_at(self.follows.of_engine(engine, Some(&happened)));
                        self.discovery.look_after(engine, happened.id());
                    }
                },
                _ = tick.tick() => {
                    self.follows.look_at(self.follows.of_engine(engine, None));
                    self.discovery.look(engine);
                }
                changed = news.changed() => {
                    if changed.is_err() || self.is_free_of(engine) {
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
                        self.follows.look_at([container]);
                    }
                }
            }
            // What happens meanwhile is heard: an engine does not wait for a listener that is slow.
            while looks.len() < LOOKS
                && let Some(container) = self.follows.next_due(engine, &busy)
            {
                busy.insert(container.clone());
                looks.push(Arc::clone(self).look(container));
            }
        }
    }

    /// Puts the rules of a container where it is. Gives whether all are in force, or wait for it.
    async fn look(self: Arc<Self>, container: Container) -> (Container, bool) {
        let looked = container.clone();
        // A task of its own: what has begun is done to its end, whatever becomes of the engine.
        let task = tokio::spawn(async move { self.catch_up(&looked).await });
        (container, task.await.unwrap_or(false))
    }

    async fn catch_up(&self, container: &Container) -> bool {
        // Only `pid:` and `self` ask for a caller.
        let nobody = Caller { pid: None, uid: Some(0) };
        let target = Target::Container(container.clone());
        let mut is_settled = true;
        for (name, followed) in self.follows.of_container(container) {
            let whereabouts = match self.whereabouts(&followed.spec, nobody, Missing::Down).await {
                Ok(whereabouts) => whereabouts,
                Err(error) => {
                    is_settled = false;
                    self.follows.wait_because(container, Some(&name), &error.message);
                    continue;
                }
            };
            // One that was found is meant whatever it is called by now.
            let named = match &followed {
                Followed { discovered: true, id, .. } => {
                    Target::Container(Container { engine: container.engine, name: id.to_string() })
                }
                _ => target.clone(),
            };
            let opened = match self.open(named, nobody).await {
                Ok(opened) => opened,
                Err(error) => {
                    self.follows.wait_because(container, None, &chain(&error));
                    if followed.discovered && error.is_not_found() {
                        // Its engine may have told of the end before it knew, or not at all.
                        self.discovery.look_after(container.engine, Some(&followed.id));
                    }
                    return error.is_not_found();
                }
            };
            let (target, how) = (target.clone(), How::Rule(Follow::Still));
            let wanted = Wanted {
                target,
                spec: followed.spec,
                host_netns: followed.host_netns,
                how,
                origin: followed.origin,
            };
            if let Err(error) = self.put_into(wanted, Some(opened), whereabouts).await {
                // One rule's trouble is not another's.
                is_settled = false;
                self.follows.wait_because(container, Some(&name), &error.message);
                if let Some(suppressed) = self.follows.said_stuck.pass() {
                    let error = error.message;
                    tracing::warn!(target = %container, error, suppressed, "a rule cannot follow its container");
                }
            }
        }
        is_settled
    }
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
