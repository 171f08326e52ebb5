//! Which processes have a listener that was given away, as `/proc` shows them.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::LeasedSocket;
use crate::sys::namespace::{pidfd_getfd, pidfd_open, pidfd_send_signal};

/// A process that has one of the listeners.
#[derive(Debug)]
pub(super) struct Holder {
    process: OwnedFd,
    /// A duplicate of it. It must not be kept: it would take connections that nobody accepts.
    pub(super) socket: OwnedFd,
}

/// Everybody who has one of these sockets, this process apart; several times who has several. Blocks: it looks at
/// every fd of every process.
pub(super) fn holders(sockets: &[LeasedSocket]) -> Vec<Holder> {
    if sockets.is_empty() {
        return Vec::new();
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let own = i32::try_from(std::process::id()).ok();
    pids.filter(|pid| Some(*pid) != own).flat_map(|pid| of_process(pid, sockets)).collect()
}

fn of_process(pid: i32, sockets: &[LeasedSocket]) -> Vec<Holder> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let candidates = entries.filter_map(|entry| {
        let inode = socket_inode(&entry.path())?;
        sockets.iter().any(|one| one.inode == inode).then_some(entry.file_name())
    });
    let taken = candidates.filter_map(|name| take(pid, name.to_str()?.parse().ok()?).ok());
    // A number may be another file's by now.
    taken.filter(|holder| is_one_of(&holder.socket, sockets)).collect()
}

/// What the link of a fd in `/proc` names when it is a socket.
fn socket_inode(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn take(pid: i32, fd: i32) -> io::Result<Holder> {
    let process = pidfd_open(pid)?;
    let socket = pidfd_getfd(&process, fd)?;
    Ok(Holder { process, socket })
}

/// Cookies are never used again; inode numbers are.
fn is_one_of(socket: &OwnedFd, sockets: &[LeasedSocket]) -> bool {
    let cookie = SockRef::from(socket).cookie().ok();
    sockets.iter().any(|one| Some(one.cookie) == cookie)
}

impl Holder {
    /// Shuts the listener down: who accepts from it is woken.
    pub(super) fn shut_down(&self) {
        // It was shut down through another holder when this fails.
        drop(SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both));
    }

    /// Signals the process. One that has ended needs none.
    pub(super) fn signal(&self, signal: Signal) {
        drop(pidfd_send_signal(self.process.as_fd(), signal as i32));
    }
}
