//! An engine that is asked: for so long and no longer, and believed as far as its answers can be meant.

use std::fmt;

use futures_util::StreamExt as _;

use super::{
    Engines,
    answer::{ContainerId, Happened, Inspected, Labelled, Labels},
    error::{ANSWER, EngineError, NoAnswer},
    runtime::{Happenings, Runtime},
    socket::{HeldSocket, Peer},
};
use crate::config::{Container, Engine, Label};

/// An engine whose socket is held.
#[derive(Debug)]
pub struct HeldEngine {
    engine: Engine,
    socket: HeldSocket,
    runtime: Box<dyn Runtime>,
}

/// What an engine tells, in its order.
pub struct Events {
    engine: HeldEngine,
    happenings: Happenings,
}

impl Engines {
    /// Holds an engine's socket.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: nobody is there, or not an engine.
    pub async fn hold(&self, engine: Engine) -> Result<HeldEngine, EngineError> {
        let (name, connect) = (self.socket(engine), super::kind(engine).connect);
        let held = async {
            let socket = HeldSocket::at(name).await;
            let socket = socket.map_err(|error| NoAnswer::Unreachable(error.to_string()))?;
            let runtime = connect(&socket.path()).await?;
            Ok(HeldEngine { engine, socket, runtime })
        };
        within(held).await.map_err(|why| EngineError { engine, socket: name.to_owned(), why })
    }

    /// What happens from this call on.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn events(&self, engine: Engine) -> Result<Events, EngineError> {
        self.hold(engine).await?.events().await
    }
}

/// Waits for an answer, for so long and no longer.
async fn within<T>(answer: impl Future<Output = Result<T, NoAnswer>>) -> Result<T, NoAnswer> {
    tokio::time::timeout(ANSWER, answer).await.unwrap_or(Err(NoAnswer::Late))
}

impl HeldEngine {
    /// The user who listens there.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.socket.peer.uid
    }

    pub(in crate::locate) fn peer(&self) -> Peer {
        self.socket.peer
    }

    /// The version of the API that it and we speak.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.runtime.api_version()
    }

    /// Looks at a container.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: it has none of that name or id, or several; it does not answer.
    pub(in crate::locate) async fn inspect(&self, name: &str) -> Result<Inspected, EngineError> {
        self.ask(async { self.runtime.inspect(name).await?.checked(name) }).await
    }

    /// Whether a container runs, paused or not.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn runs(&self, id: &ContainerId) -> Result<bool, EngineError> {
        self.ask(self.runtime.running(id)).await
    }

    /// The containers that run and have a label, as far as they can be named.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn labelled(&self, label: &Label) -> Result<Vec<Labelled>, EngineError> {
        let mut labelled = self.ask(self.runtime.labelled(label)).await?;
        labelled.retain(|one| label.is_of(&one.labels) && Container::parse(self.engine, &one.name).is_ok());
        Ok(labelled)
    }

    /// The names of the containers that run, as far as they can be named.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn names(&self) -> Result<Vec<String>, EngineError> {
        let mut names = self.ask(self.runtime.names()).await?;
        names.retain(|name| Container::parse(self.engine, name).is_ok());
        Ok(names)
    }

    /// The labels of an image.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn image_labels(&self, image: &str) -> Result<Labels, EngineError> {
        self.ask(self.runtime.image_labels(image)).await
    }

    pub(super) async fn events(self) -> Result<Events, EngineError> {
        let happenings = self.ask(self.runtime.events()).await?;
        Ok(Events { engine: self, happenings })
    }

    async fn ask<T>(&self, answer: impl Future<Output = Result<T, NoAnswer>>) -> Result<T, EngineError> {
        within(answer).await.map_err(|why| self.failed(why))
    }

    fn failed(&self, why: NoAnswer) -> EngineError {
        EngineError { engine: self.engine, socket: self.socket.name.clone(), why }
    }

    /// One that answers what a test wants.
    #[cfg(test)]
    pub(in crate::locate) fn of(engine: Engine, peer: Peer, runtime: impl Runtime + 'static) -> Self {
        Self { engine, socket: HeldSocket::of(peer), runtime: Box::new(runtime) }
    }
}

impl Events {
    /// The next one; `None` when the engine has ended.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: no other will come.
    pub async fn next(&mut self) -> Option<Result<Happened, EngineError>> {
        Some(self.happenings.next().await?.map_err(|why| self.engine.failed(why)))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("engine", &self.engine).finish_non_exhaustive()
    }
}
