//! Waiting until a service says that it is ready (sd_notify(3)).

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};

/// A guard against hanging.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Notify {
    /// For the variable `NOTIFY_SOCKET`.
    pub(super) path: PathBuf,
    socket: UnixDatagram,
}

impl Notify {
    pub(super) fn bind(path: &Path) -> Result<Self> {
        let socket = UnixDatagram::bind(path).with_context(|| format!("bind `{}`", path.display()))?;
        socket.set_read_timeout(Some(LIMIT)).context("set the time limit of NOTIFY_SOCKET")?;
        Ok(Self { path: path.to_owned(), socket })
    }

    /// All that it says until then.
    pub(super) fn wait_until_ready(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        let mut buffer = [0; 4096];
        while !lines.iter().any(|line| line == "READY=1") {
            let length = self.socket.recv(&mut buffer).context("wait for READY=1 on NOTIFY_SOCKET")?;
            lines.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        Ok(lines)
    }
}
