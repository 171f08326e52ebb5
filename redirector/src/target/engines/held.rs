//! An engine whose socket is held: all that is asked is asked of one, whatever its path leads to meanwhile.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::PathBuf,
};

use bollard::Docker;
use nix::fcntl::OFlag;

use super::{ANSWER, EngineError, Engines, error::Failure, peer};
use crate::config::Engine;

/// One engine.
#[derive(Debug)]
pub struct HeldEngine {
    engine: Engine,
    /// As it is named.
    socket: PathBuf,
    /// O_PATH: `/proc/self/fd` leads to the same socket for as long as it is open.
    held: File,
    owner: u32,
}

impl Engines {
    /// Holds an engine's socket.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: nobody is there.
    pub async fn hold(&self, engine: Engine) -> Result<HeldEngine, EngineError> {
        let socket = self.socket(engine).to_owned();
        let path = socket.clone();
        let hold = move || {
            let flags = (OFlag::O_PATH | OFlag::O_CLOEXEC).bits();
            let held = OpenOptions::new().read(true).custom_flags(flags).open(&path)?;
            let owner = peer(&path_of(&held))?.uid();
            io::Result::Ok((held, owner))
        };
        let held = tokio::time::timeout(ANSWER, tokio::task::spawn_blocking(hold)).await;
        let failure = match held {
            Ok(Ok(Ok((held, owner)))) => return Ok(HeldEngine { engine, socket, held, owner }),
            Ok(Ok(Err(error))) => Failure::Unreachable(error.to_string()),
            Ok(Err(error)) => Failure::Unreachable(error.to_string()),
            Err(_) => Failure::Late,
        };
        Err(EngineError { engine, socket, failure })
    }
}

fn path_of(held: &File) -> PathBuf {
    format!("/proc/self/fd/{}", held.as_raw_fd()).into()
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
        self.owner
    }

    /// As [`Engines::ask`].
    pub(super) async fn ask<T>(
        &self,
        talk: impl AsyncFnOnce(Docker) -> Result<T, Failure>,
    ) -> Result<T, EngineError> {
        let answer = super::ask(&path_of(&self.held), talk).await;
        answer.map_err(|failure| EngineError { engine: self.engine, socket: self.socket.clone(), failure })
    }
}
