//! Which processes have a listener that was given away, as `/proc` shows them.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::sys::signal::Signal;
use socket2::SockRef;

use super::{LeasedSocket, task::Task};
use crate::sys::namespace::{pidfd_open, pidfd_send_signal};

/// A process that has one of the listeners.
#[derive(Debug)]
pub(super) struct Holder {
    pid: i32,
    process: OwnedFd,
    /// A duplicate of it. It must not be kept: it would take connections that nobody accepts.
    pub(super) socket: OwnedFd,
}

/// Everybody who has one of these sockets, this process apart; several times who has several. Who got them is looked
/// at first, and the others only as far as the iterator is asked. Blocks: it may look at every fd of every process.
pub(super) fn holders(sockets: &[LeasedSocket]) -> impl Iterator<Item = Holder> {
    let first: Vec<i32> = sockets.iter().filter_map(|one| one.receiver).collect();
    let known = first.clone();
    let others = others(sockets.is_empty()).filter(move |pid| !known.contains(pid));
    let mut seen = HashSet::new();
    let pids = first.into_iter().filter(move |pid| seen.insert(*pid)).chain(others);
    pids.flat_map(|pid| of_process(pid, sockets))
}

/// The processes there are, this one apart. The directory is read when the first is asked for.
fn others(none: bool) -> impl Iterator<Item = i32> {
    let own = i32::try_from(std::process::id()).ok();
    let read = move || if none { None } else { fs::read_dir("/proc").ok() };
    let entries = std::iter::once_with(read).flatten().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(move |pid| Some(*pid) != own)
}

fn of_process(pid: i32, sockets: &[LeasedSocket]) -> Vec<Holder> {
    let mut found = of_task(pid, Task(pid), sockets);
    // Its first thread has ended, or has a table of its own.
    if found.is_none() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let tasks = tasks.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        found = tasks.filter(|task| *task != pid).find_map(|task| of_task(pid, Task(task), sockets));
    }
    found.unwrap_or_default()
}

/// `None`: the task has no file at all.
fn of_task(pid: i32, task: Task, sockets: &[LeasedSocket]) -> Option<Vec<Holder>> {
    fs::read_dir(format!("/proc/{}/fd", task.0)).ok()?.next()?.ok()?;
    let theirs = task.sockets().filter(|(_, inode)| sockets.iter().any(|one| one.inode == *inode));
    let taken = theirs.filter_map(|(fd, inode)| take(pid, task, fd, inode).ok());
    // A number may be another file's by now.
    Some(taken.filter(|holder| is_one_of(&holder.socket, sockets)).collect())
}

fn take(pid: i32, task: Task, fd: i32, inode: u64) -> io::Result<Holder> {
    let process = pidfd_open(pid)?;
    Ok(Holder { pid, process, socket: task.take(fd, inode)? })
}

/// Cookies are never used again; inode numbers are.
fn is_one_of(socket: &OwnedFd, sockets: &[LeasedSocket]) -> bool {
    let cookie = SockRef::from(socket).cookie().ok();
    sockets.iter().any(|one| Some(one.cookie) == cookie)
}

/// The cookies of those of these sockets that somebody holds. One look for all of them.
pub(super) fn held(sockets: &[LeasedSocket]) -> HashSet<u64> {
    holders(sockets).filter_map(|holder| SockRef::from(&holder.socket).cookie().ok()).collect()
}

impl Holder {
    /// Shuts the listener down: who accepts from it is woken.
    pub(super) fn shut_down(&self) {
        // It was shut down through another holder when this fails.
        drop(SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both));
    }

    /// Signals the process when it is this user's. One that has ended needs none, and one of somebody else must get
    /// none: anybody can be sent a listener.
    pub(super) fn signal(&self, user: u32, signal: Signal) {
        if Task(self.pid).user().is_ok_and(|theirs| theirs == user) {
            drop(pidfd_send_signal(self.process.as_fd(), signal as i32));
        }
    }
}
