//! Container engines: what they say of a container, and what happens to containers. By the API that Docker and
//! Podman share, over their sockets (Docker Engine API 1.24 or later).
//!
//! What an engine says is believed about containers only: a namespace is opened, and looked at, as any other.

mod error;
mod events;
mod held;
mod inspect;
mod labelled;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

pub use error::EngineError;
use error::Failure;
pub use events::{Events, Happened};
pub use held::HeldEngine;
pub use inspect::ContainerId;
pub(super) use inspect::Inspected;
pub use labelled::{Labelled, Labels};

use crate::config::Engine;

/// Until an engine that does not answer is given up, for each request.
const ANSWER: Duration = Duration::from_secs(10);

/// Where engines listen.
#[derive(Clone, Debug)]
pub struct EngineSockets {
    /// Docker's.
    pub docker: PathBuf,
    /// Podman's, of the system or of a user.
    pub podman: PathBuf,
}

impl EngineSockets {
    /// Docker's default.
    pub const DOCKER: &str = "/var/run/docker.sock";
    /// Podman's default for root (podman-system-service(1)).
    pub const PODMAN: &str = "/run/podman/podman.sock";

    fn of(&self, engine: Engine) -> &Path {
        match engine {
            Engine::Docker => &self.docker,
            Engine::Podman => &self.podman,
        }
    }
}

impl Default for EngineSockets {
    fn default() -> Self {
        Self { docker: Self::DOCKER.into(), podman: Self::PODMAN.into() }
    }
}

/// The engines of this host. Nothing is kept between requests.
#[derive(Clone, Debug, Default)]
pub struct Engines(EngineSockets);

impl Engines {
    /// Of engines that listen there.
    #[must_use]
    pub fn new(sockets: EngineSockets) -> Self {
        Self(sockets)
    }

    /// Where an engine listens, or should.
    #[must_use]
    pub fn socket(&self, engine: Engine) -> &Path {
        self.0.of(engine)
    }
}
