//! What happens to containers, as their engine tells it.

use std::{
    collections::HashMap,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bollard::{
    models::EventMessage,
    query_parameters::{EventsOptions, EventsOptionsBuilder},
};
use futures_util::{Stream, StreamExt as _};

use super::{ContainerId, EngineError, Engines, HeldEngine, error::Failure};
use crate::config::{Container, Engine};

/// Something happened to a container: it started, say, or has another name now.
#[derive(Clone, Debug)]
pub struct Happened {
    engine: Engine,
    id: Option<ContainerId>,
    /// What it is called now.
    name: Option<String>,
}

impl Happened {
    /// To which container.
    #[must_use]
    pub fn id(&self) -> Option<&ContainerId> {
        self.id.as_ref()
    }

    /// Whether it may be this one.
    #[must_use]
    pub fn concerns(&self, container: &Container, id: Option<&ContainerId>) -> bool {
        self.engine == container.engine
            && (self.name.as_deref() == Some(&container.name)
                || self.id.as_ref().is_some_and(|own| Some(own) == id || own.starts_with(&container.name)))
    }
}

/// What an engine tells, in its order.
pub struct Events {
    engine: HeldEngine,
    stream: Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>> + Send>>,
}

impl Engines {
    /// What happens from a moment before this call on.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn events(&self, engine: Engine) -> Result<Events, EngineError> {
        // The engine is asked when the first event is waited for: what happens until then must not be missed.
        let since = SystemTime::now() - Duration::from_secs(1);
        let engine = self.hold(engine).await?;
        let stream = engine.ask(async |docker| Ok(docker.events(Some(of_containers(since))).boxed())).await?;
        Ok(Events { engine, stream })
    }
}

impl Events {
    /// The next one; `None` when the engine has ended.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: no other will come.
    pub async fn next(&mut self) -> Option<Result<Happened, EngineError>> {
        Some(match self.stream.next().await? {
            Ok(EventMessage { actor, .. }) => {
                let actor = actor.unwrap_or_default();
                let id = actor.id.and_then(ContainerId::new);
                let name = actor.attributes.and_then(|mut attributes| attributes.remove("name"));
                Ok(Happened { engine: self.engine.engine(), id, name })
            }
            Err(error) => Err(self.engine.failed(Failure::from(error))),
        })
    }
}

fn of_containers(since: SystemTime) -> EventsOptions {
    // Docker says `destroy`, Podman `remove`. Others (exec, health checks) can be many, and change nothing.
    let events = ["start", "die", "rename", "destroy", "remove"].map(str::to_owned).to_vec();
    let filters =
        HashMap::from([("type".to_owned(), vec!["container".to_owned()]), ("event".to_owned(), events)]);
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().to_string();
    EventsOptionsBuilder::new().filters(&filters).since(&since).build()
}
