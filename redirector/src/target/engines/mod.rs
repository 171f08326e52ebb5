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
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use bollard::{API_DEFAULT_VERSION, Docker};
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};

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

    /// Whether numbers of processes mean to an engine what they mean to us: its socket's other end is in our PID
    /// namespace. Blocks.
    ///
    /// # Errors
    ///
    /// As connect(2), getsockopt(2) `SO_PEERCRED`, or when `/proc` does not show that process.
    pub(super) fn shares_processes(&self, engine: Engine) -> io::Result<bool> {
        let peer = peer(self.socket(engine))?.pid();
        let status = fs::read_to_string(format!("/proc/{peer}/status"))?;
        // Its number in our PID namespace, and in each below that it is in (proc_pid_status(5); Linux 4.1).
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        Ok(numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1))
    }

    /// The version of the API that an engine and we speak.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn api_version(&self, engine: Engine) -> Result<String, EngineError> {
        self.ask(engine, async |docker| Ok(docker.client_version().to_string())).await
    }

    /// Talks with an engine, for so long and no longer.
    async fn ask<T>(
        &self,
        engine: Engine,
        talk: impl AsyncFnOnce(Docker) -> Result<T, Failure>,
    ) -> Result<T, EngineError> {
        let socket = self.socket(engine);
        let answer = ask(socket, talk).await;
        answer.map_err(|failure| EngineError { engine, socket: socket.to_owned(), failure })
    }
}

/// Who listens at a socket. Blocks.
fn peer(socket: &Path) -> io::Result<UnixCredentials> {
    Ok(getsockopt(&UnixStream::connect(socket)?, PeerCredentials)?)
}

/// A client that speaks a version of the API that the engine knows.
async fn connect(socket: &Path) -> Result<Docker, Failure> {
    let socket = socket.to_str().ok_or(Failure::NotText)?;
    let client = Docker::connect_with_unix(socket, ANSWER.as_secs(), API_DEFAULT_VERSION)?;
    client.negotiate_version().await.map_err(Failure::of_no_container)
}

/// Talks with whoever listens at a socket.
async fn ask<T>(socket: &Path, talk: impl AsyncFnOnce(Docker) -> Result<T, Failure>) -> Result<T, Failure> {
    let talk = async { talk(connect(socket).await?).await };
    tokio::time::timeout(ANSWER, talk).await.unwrap_or(Err(Failure::Late))
}
