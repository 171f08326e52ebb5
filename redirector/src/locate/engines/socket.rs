//! A socket that is held: whoever is asked there is one, whatever its path leads to meanwhile.

use std::{
    fs::File,
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use tokio::net::UnixStream;

use crate::{
    locate::processes,
    sys::{self, blocking::blocking},
};

#[derive(Debug)]
pub(super) struct HeldSocket {
    /// As it is named.
    pub(super) name: PathBuf,
    /// O_PATH: `/proc/self/fd` leads to the same socket for as long as it is open.
    held: File,
    pub(super) peer: Peer,
}

/// Who listens at a socket (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug)]
pub(in crate::locate) struct Peer {
    /// In our PID namespace, where it can be seen there.
    pub(in crate::locate) pid: Option<i32>,
    /// Its user.
    pub(in crate::locate) uid: u32,
}

impl HeldSocket {
    pub(super) async fn at(name: &Path) -> io::Result<Self> {
        let name = name.to_owned();
        let path = name.clone();
        let held = blocking(move || sys::path::hold(path, OFlag::empty())).await??;
        // Never a thread's: who listens may have no room for us, for ever.
        let peer = UnixStream::connect(path_of(&held)).await?.peer_cred()?;
        Ok(Self { name, held, peer: Peer { pid: peer.pid(), uid: peer.uid() } })
    }

    /// A path that leads to it for as long as it is held.
    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.held)
    }

    #[cfg(test)]
    pub(super) fn of(peer: Peer) -> Self {
        Self { name: "/run/fake.sock".into(), held: File::open("/dev/null").unwrap(), peer }
    }
}

fn path_of(held: &File) -> PathBuf {
    format!("/proc/self/fd/{}", held.as_raw_fd()).into()
}

impl Peer {
    /// Our number of a process that is called `pid` where the engine is: in our PID namespace, or in one below. `None` where it
    /// is elsewhere, or has no such process. Blocks.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub(in crate::locate) fn process_called(self, pid: i32) -> io::Result<Option<i32>> {
        if self.shares_processes().unwrap_or(false) {
            return Ok(Some(pid));
        }
        // One that listens in a PID namespace beside or around ours has no number here, which the kernel says by 0.
        match self.pid {
            Some(engine) if engine > 0 => processes::called_by(engine, pid),
            _ => Ok(None),
        }
    }

    /// Whether numbers of processes mean to it what they mean to us: it is in our PID namespace. Blocks.
    ///
    /// # Errors
    ///
    /// When `/proc` does not show that process.
    pub(in crate::locate) fn shares_processes(self) -> io::Result<bool> {
        let Some(peer) = self.pid else { return Ok(false) };
        Ok(processes::numbers_of(peer)?.len() == 1)
    }
}
