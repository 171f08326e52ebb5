//! The only `unsafe` of this crate: system calls that no crate wraps, each as a typed safe function.

pub mod aside;
pub(crate) mod blocking;
pub mod bpf;
pub(crate) mod inject;
pub(crate) mod memory;
pub mod namespace;
pub mod path;
pub mod seccomp;
pub mod sequence;
pub mod socket;

use std::{
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
};

use tokio::io::{Interest, unix::AsyncFd};

/// A system call that failed, by name. The cause is in the chain.
#[derive(Debug, thiserror::Error)]
#[error("{call}")]
pub struct SyscallError {
    /// As in its manual page.
    pub call: &'static str,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Names the call that an error came from.
pub(crate) fn named<T>(call: &'static str, result: io::Result<T>) -> Result<T, SyscallError> {
    result.map_err(|source| SyscallError { call, source })
}

/// The result of a system call that gives a new fd, which nobody else owns.
pub(crate) fn owned(fd: i64) -> OwnedFd {
    let fd = RawFd::try_from(fd).expect("the kernel gives fds below 2^31");
    // SAFETY: the kernel has just made this fd for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Registers an fd other than a socket with the runtime, to wait for `interest`.
///
/// # Errors
///
/// As epoll_ctl(2): `EPERM` for an fd that cannot be polled.
pub fn async_fd<T: Into<OwnedFd>>(fd: T, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    inject::point("epoll_ctl")?;
    // SAFETY: an `OwnedFd` gives the same open fd for as long as it lives, which is in there until it is dropped.
    let registered = unsafe { AsyncFd::register_with_interest(fd.into(), interest) };
    Ok(registered?)
}

/// Drops what this thread would pass on over execve(2) as another user: the ambient capabilities. A change of user
/// drops them too, but not under `SECBIT_NO_SETUID_FIXUP` (capabilities(7)).
///
/// # Errors
///
/// As prctl(2).
pub fn clear_ambient_capabilities() -> io::Result<()> {
    inject::point("prctl PR_CAP_AMBIENT")?;
    // SAFETY: takes integers only.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a write to a pipe that nobody reads an error, as the Rust runtime has done at the start of the process.
pub fn ignore_broken_pipes() {
    // SAFETY: no handler of ours is set or replaced.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// # Errors
///
/// When this process has another thread: what that holds would be held for ever in a child.
fn may_fork() -> io::Result<()> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads == 1 { Ok(()) } else { Err(io::Error::other("fork: there is another thread")) }
}

/// Runs work in a process of its own, which is nobody's child here, in a session of its own, and has no files but `file`, standard
/// error, and /dev/null for the other standard streams. Returns when that process has begun.
///
/// # Errors
///
/// As fork(2) and waitpid(2), and when this process has another thread.
pub fn detached(file: OwnedFd, work: impl FnOnce(OwnedFd)) -> io::Result<()> {
    may_fork()?;
    inject::point("fork")?;
    // SAFETY: this process has one thread, so the child is a whole copy of it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: as above.
            let inner = unsafe { libc::fork() };
            if inner == 0 && leave(&file).is_ok() {
                // What it says of a panic has been said.
                drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(file))));
            }
            // SAFETY: ends this process at once: what others have begun is not its to end.
            unsafe { libc::_exit(i32::from(inner < 0)) }
        }
        child => {
            let child = nix::unistd::Pid::from_raw(child);
            match nix::sys::wait::waitpid(child, None)? {
                nix::sys::wait::WaitStatus::Exited(_, 0) => Ok(()),
                status => Err(io::Error::other(format!("a child process: {status:?}"))),
            }
        }
    }
}

/// Leaves what a process has inherited: its session, its directory, its files.
fn leave(file: &OwnedFd) -> io::Result<()> {
    const FIRST: u32 = 3;
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    drop(null);
    let kept = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    for (first, last) in [(FIRST, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: takes integers only. Whoever owned one of these is in a frame that is never left.
        let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Runs work that changes who this process is in a child process, which ends with it. `None` when all went well, else
/// what `work` says.
///
/// # Errors
///
/// As pipe(2), fork(2) and waitpid(2), and when this process has another thread: what that holds would be held for ever
/// in the child.
pub fn in_child(work: impl FnOnce() -> Option<String>) -> io::Result<Option<String>> {
    may_fork()?;
    let (mut reader, mut writer) = io::pipe()?;
    inject::point("fork")?;
    // SAFETY: this process has one thread, so the child is a whole copy of it.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reader);
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let said = worked.unwrap_or_else(|_| Some("it panicked".to_owned()));
            // Nothing said is nothing wrong.
            let written = said.is_none_or(|said| writer.write_all(said.as_bytes()).is_ok());
            // SAFETY: ends this process at once: what the parent has begun is not ours to end.
            unsafe { libc::_exit(i32::from(!written)) }
        }
        child => {
            drop(writer);
            let mut said = String::new();
            reader.read_to_string(&mut said)?;
            let status = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(child), None)?;
            if status != nix::sys::wait::WaitStatus::Exited(nix::unistd::Pid::from_raw(child), 0) {
                return Err(io::Error::other(format!("a child process: {status:?}")));
            }
            Ok(Some(said).filter(|said| !said.is_empty()))
        }
    }
}
