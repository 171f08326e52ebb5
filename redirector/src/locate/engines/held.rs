//! An engine whose socket is held: all that is asked is asked of one, whatever its path leads to meanwhile.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::PathBuf,
};

use bollard::{API_DEFAULT_VERSION, Docker};
use nix::fcntl::OFlag;
use tokio::net::{UnixStream, unix::UCred};

use super::{ANSWER, EngineError, Engines, error::Failure};
use crate::{
    config::Engine,
    sys::{self, blocking::blocking},
};

/// One engine, and a client that speaks a version of the API that it knows.
#[derive(Debug)]
pub struct HeldEngine {
    engine: Engine,
    /// As it is named.
    socket: PathBuf,
    /// O_PATH: `/proc/self/fd` leads to the same socket for as long as it is open, and the client goes there.
    _held: File,
    /// Who listens there.
    peer: UCred,
    client: Docker,
}

impl Engines {
    /// Holds an engine's socket.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: nobody is there, or not an engine.
    pub async fn hold(&self, engine: Engine) -> Result<HeldEngine, EngineError> {
        let socket = self.socket(engine).to_owned();
        let path = socket.clone();
        let held = async move {
            let (held, peer) = hold(path).await.map_err(|error| Failure::Unreachable(error.to_string()))?;
            let path = path_of(&held);
            let client = Docker::connect_with_unix(&path, ANSWER.as_secs(), API_DEFAULT_VERSION)?;
            let client = client.negotiate_version().await.map_err(Failure::of_no_container)?;
            Ok((held, peer, client))
        };
        match tokio::time::timeout(ANSWER, held).await.unwrap_or(Err(Failure::Late)) {
            Ok((held, peer, client)) => Ok(HeldEngine { engine, socket, _held: held, peer, client }),
            Err(failure) => Err(EngineError { engine, socket, failure }),
        }
    }
}

async fn hold(socket: PathBuf) -> io::Result<(File, UCred)> {
    let open = move || sys::path::hold(socket, OFlag::empty());
    let held = blocking(open).await??;
    // Never a thread's: who listens may have no room for us, for ever.
    let peer = UnixStream::connect(path_of(&held)).await?.peer_cred()?;
    Ok((held, peer))
}

fn path_of(held: &File) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}

impl HeldEngine {
    /// Which one.
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// The user who listens there (`SO_PEERCRED`).
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.peer.uid()
    }

    /// Whether numbers of processes mean to the engine what they mean to us: its socket's other end is in our PID namespace.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// When `/proc` does not show that process.
    pub(in crate::locate) fn shares_processes(&self) -> io::Result<bool> {
        let Some(peer) = self.peer.pid() else { return Ok(false) };
        let status = fs::read_to_string(format!("/proc/{peer}/status"))?;
        // Its number in our PID namespace, and in each below that it is in (proc_pid_status(5); Linux 4.1).
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        Ok(numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1))
    }

    /// The version of the API that it and we speak.
    #[must_use]
    pub fn api_version(&self) -> String {
        self.client.client_version().to_string()
    }

    /// Talks with it, for so long and no longer.
    pub(super) async fn ask<T>(
        &self,
        talk: impl AsyncFnOnce(&Docker) -> Result<T, Failure>,
    ) -> Result<T, EngineError> {
        let answer = tokio::time::timeout(ANSWER, talk(&self.client)).await.unwrap_or(Err(Failure::Late));
        answer.map_err(|failure| self.failed(failure))
    }

    pub(super) fn failed(&self, failure: Failure) -> EngineError {
        EngineError { engine: self.engine, socket: self.socket.clone(), failure }
    }
}
