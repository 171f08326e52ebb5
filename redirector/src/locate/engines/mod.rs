//! Container engines: what they say of a container, and what happens to containers.
//!
//! [`runtime::Runtime`] is what an engine can be asked; each API that engines speak is one file that implements it, and each
//! engine a line of [`kind`]. All else is the same for all of them: which socket is asked and for how long, who listens
//! there, and which answers can be meant.
//!
//! What an engine says is believed about containers only: a namespace is opened, and looked at, as any other.

mod answer;
mod docker;
mod error;
#[cfg(test)]
mod fake;
mod held;
mod runtime;
mod socket;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub(super) use answer::Inspected;
pub use answer::{ContainerId, Happened, Labelled, Labels};
pub use error::EngineError;
#[cfg(test)]
pub(super) use error::NoAnswer;
#[cfg(test)]
pub(super) use fake::Fake;
pub use held::{Events, HeldEngine};
use runtime::Connect;
#[cfg(test)]
pub(super) use socket::Peer;

use crate::config::Engine;

/// What has to be known of an engine before it is asked.
struct Kind {
    /// Where it listens, if nobody says another place.
    socket: &'static str,
    /// What speaks its API.
    connect: Connect,
}

const fn kind(engine: Engine) -> Kind {
    match engine {
        Engine::Docker => Kind { socket: "/var/run/docker.sock", connect: docker::connect },
        // For root (podman-system-service(1)).
        Engine::Podman => Kind { socket: "/run/podman/podman.sock", connect: docker::connect },
    }
}

/// The engines of this host. Nothing is kept between requests.
#[derive(Clone, Debug, Default)]
pub struct Engines {
    /// Of those that listen elsewhere than by default.
    sockets: BTreeMap<Engine, PathBuf>,
}

impl Engines {
    /// Where an engine listens, unless it is said to listen elsewhere.
    #[must_use]
    pub const fn default_socket(engine: Engine) -> &'static str {
        kind(engine).socket
    }

    /// With an engine that listens there.
    #[must_use]
    pub fn with(mut self, engine: Engine, socket: PathBuf) -> Self {
        self.sockets.insert(engine, socket);
        self
    }

    /// Where an engine listens, or should.
    #[must_use]
    pub fn socket(&self, engine: Engine) -> &Path {
        self.sockets.get(&engine).map_or_else(|| Path::new(kind(engine).socket), PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests;
