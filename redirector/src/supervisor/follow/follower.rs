//! Looks where followed containers are, when their engine says that something happened to them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use backon::BackoffBuilder as _;
use futures_util::{StreamExt as _, stream::FuturesUnordered};

use super::{Follow, Supervisor};
use crate::{
    config::{Container, Engine, Target},
    control::{Caller, Code},
    supervisor::attach::{How, Wanted},
    target::EngineError,
};

/// Between two looks at all containers, whatever the engine has told.
const TICK: Duration = Duration::from_secs(30);

/// Until a rule that could not be put is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Containers that are looked at at once.
const LOOKS: usize = 8;

/// Between tries to reach an engine: first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How listening to an engine ended.
enum Ended {
    /// No rule follows a container of it.
    NotNeeded,
    /// It is gone, or was not there.
    Lost(Option<EngineError>),
}

impl Supervisor {
    /// Follows the containers of one engine until the daemon ends.
    pub(in crate::supervisor) async fn follow(self: Arc<Self>, engine: Engine) {
        let pauses = || {
            let (first, most) = PAUSES;
            let pauses = backon::ExponentialBuilder::default().with_min_delay(first).with_max_delay(most);
            pauses.without_max_times().with_jitter().build()
        };
        let mut news = self.follows.news.subscribe();
        let mut pause = pauses();
        let mut was_lost = false;
        loop {
            while self.follows.of(engine, None).is_empty() {
                if news.changed().await.is_err() {
                    return;
                }
            }
            let mut heard = false;
            match self.listen(engine, &mut heard).await {
                Ended::NotNeeded => continue,
                Ended::Lost(error) => {
                    let why = error.map_or_else(|| format!("{engine} has ended"), |error| error.to_string());
                    if heard || !was_lost {
                        tracing::warn!(why, "not told what happens to containers; trying again");
                    }
                    for container in self.follows.of(engine, None) {
                        self.follows.waits(&container, why.clone());
                    }
                    if heard {
                        pause = pauses();
                    }
                    was_lost = true;
                }
            }
            tokio::time::sleep(pause.next().unwrap_or(PAUSES.1)).await;
        }
    }

    /// Acts on what an engine tells. `heard` is set when it has answered.
    async fn listen(self: &Arc<Self>, engine: Engine, heard: &mut bool) -> Ended {
        let mut events = match self.opener.engines().events(engine).await {
            Ok(events) => events,
            Err(error) => return Ended::Lost(Some(error)),
        };
        *heard = true;
        let mut news = self.follows.news.subscribe();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut looks, mut busy) = (FuturesUnordered::new(), BTreeSet::new());
        loop {
            tokio::select! {
                event = events.next() => match event {
                    None => return Ended::Lost(None),
                    Some(Err(error)) => return Ended::Lost(Some(error)),
                    Some(Ok(happened)) => self.follows.look_at(self.follows.of(engine, Some(&happened))),
                },
                _ = tick.tick() => self.follows.look_at(self.follows.of(engine, None)),
                changed = news.changed() => {
                    if changed.is_err() || self.follows.of(engine, None).is_empty() {
                        return Ended::NotNeeded;
                    }
                }
                Some(looked) = looks.next(), if !looks.is_empty() => {
                    if let Ok(container) = looked {
                        busy.remove(&container);
                    }
                }
            }
            // What happens meanwhile is heard: an engine does not wait for a listener that is slow.
            while looks.len() < LOOKS
                && let Some(container) = self.follows.next_due(engine, &busy)
            {
                busy.insert(container.clone());
                // A task of its own: what has begun is done to its end, whatever becomes of the engine.
                looks.push(tokio::spawn(Arc::clone(self).look(container)));
            }
        }
    }

    /// Puts the rules of a container where it is, and has it looked at again when that does not go well.
    async fn look(self: Arc<Self>, container: Container) -> Container {
        if !self.catch_up(&container).await {
            let again = container.clone();
            tokio::spawn(async move {
                tokio::time::sleep(RETRY).await;
                self.follows.look_at([again]);
            });
        }
        container
    }

    /// Puts the rules that follow a container where it is now. Gives whether all are in force, or wait for it.
    async fn catch_up(&self, container: &Container) -> bool {
        let Some(followed) = self.follows.get(container) else { return true };
        for rule in followed.rules.into_values() {
            let wanted = Wanted {
                target: Target::Container(container.clone()),
                spec: rule.spec,
                host_netns: rule.host_netns,
                how: How::Rule(Follow::Still),
            };
            // Only `pid:` and `self` ask for a caller.
            if let Err(error) = self.put(Caller { pid: None, uid: Some(0) }, wanted).await {
                self.follows.waits(container, error.message.clone());
                if error.code == Code::NotFound {
                    return true;
                }
                if let Some(suppressed) = self.follows.said_stuck.pass() {
                    let error = error.message;
                    tracing::warn!(target = %container, error, suppressed, "a rule cannot follow its container");
                }
                return false;
            }
        }
        true
    }
}
