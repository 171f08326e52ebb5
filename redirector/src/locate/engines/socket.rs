//! A socket that is held: whoever is asked there is one, whatever its path leads to meanwhile.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd as _,
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use tokio::net::UnixStream;

use crate::sys::{self, blocking::blocking};

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
    /// Whether numbers of processes mean to it what they mean to us: it is in our PID namespace. Blocks.
    ///
    /// # Errors
    ///
    /// When `/proc` does not show that process.
    pub(in crate::locate) fn shares_processes(self) -> io::Result<bool> {
        let Some(peer) = self.pid else { return Ok(false) };
        let status = fs::read_to_string(format!("/proc/{peer}/status"))?;
        // Its number in our PID namespace, and in each below that it is in (proc_pid_status(5); Linux 4.1).
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        Ok(numbers.is_some_and(|numbers| numbers.split_whitespace().count() == 1))
    }
}
