//! Entering a namespace, or a new one.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    panic, thread,
};

use nix::sched::CloneFlags;

use crate::sys::inject::point;

/// Runs a closure in a network namespace (an nsfs fd), on a thread that has no other work and then ends. So
/// whatever the closure does, no thread of this process stays in that namespace. Blocks; costs the making of a
/// thread.
///
/// # Errors
///
/// When the thread cannot be made, or as setns(2): `EPERM` without CAP_SYS_ADMIN.
///
/// # Panics
///
/// When the closure does.
pub fn enter<T: Send>(netns: impl AsFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let netns = netns.as_fd();
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("netns".into()).spawn_scoped(scope, move || {
            set(netns)?;
            Ok(work())
        })?;
        inside.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

/// Runs a closure in a network namespace that is made for it, on a thread that then ends. The namespace is gone
/// with the thread and with what the closure gives back of it, also when the process is killed. Blocks.
///
/// # Errors
///
/// When the thread cannot be made, or as unshare(2): `EPERM` without CAP_SYS_ADMIN.
///
/// # Panics
///
/// When the closure does.
pub fn in_new<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = thread::Builder::new().name("new netns".into()).spawn_scoped(scope, move || {
            leave()?;
            Ok(work())
        })?;
        inside.join().unwrap_or_else(|payload| panic::resume_unwind(payload))
    })
}

#[expect(clippy::disallowed_methods, reason = "the one place that leaves a namespace for a new one")]
fn leave() -> io::Result<()> {
    point("unshare")?;
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}

#[expect(clippy::disallowed_methods, reason = "the one place that enters a namespace")]
fn set(netns: BorrowedFd<'_>) -> io::Result<()> {
    point("setns")?;
    nix::sched::setns(netns, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)
}
