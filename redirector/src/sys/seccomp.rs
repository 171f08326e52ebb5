//! Being asked about another process's calls of listen(2): seccomp user notification (seccomp_unotify(2)).

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{inject::point, owned};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// From here on each listen(2) of this thread, and of what it runs, waits until the holder of the fd has answered.
/// Cannot be undone. When the last holder is gone, these calls fail with `ENOSYS`. Minimum kernel 5.9 (for
/// [`Call::replace`]); before 5.19 a signal interrupts them.
///
/// io_uring, which can listen since 6.11 and asks nobody, cannot be set up any more (`EPERM`): programs that use it
/// do without where an administrator has switched it off. Calls by another ABI than the native one (32-bit programs)
/// are not asked about.
///
/// # Errors
///
/// As seccomp(2): `EACCES` without CAP_SYS_ADMIN and `no_new_privs`; `EBUSY` when somebody is asked already.
pub fn ask_about_listen() -> io::Result<OwnedFd> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    /// `offsetof(struct seccomp_data, …)`.
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    let number = |call| u32::try_from(call).map_err(io::Error::other);
    let (listen, io_uring) = (number(libc::SYS_listen)?, number(libc::SYS_io_uring_setup)?);
    let refused = libc::SECCOMP_RET_ERRNO | number(libc::EPERM.into())?;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, ARCH, 0, 0),
        step(IF_EQUAL, ARCHITECTURE, 0, 5),
        step(LOAD, NUMBER, 0, 0),
        step(IF_EQUAL, listen, 0, 1),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        step(IF_EQUAL, io_uring, 0, 1),
        step(RETURN, refused, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).map_err(io::Error::other)?,
        filter: steps.as_mut_ptr(),
    };
    // Without SPEC_ALLOW kernels before 5.16 slow the program down, against attacks that this filter is not about.
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    match install(&program, flags | WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => install(&program, flags),
        result => result,
    }
}

/// From when the call has been taken only a fatal signal ends the wait: listen(2) never fails with `EINTR` else, and
/// programs do not expect it. Linux 5.19, include/uapi/linux/seccomp.h.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

fn install(program: &libc::sock_fprog, flags: libc::c_ulong) -> io::Result<OwnedFd> {
    point("seccomp SECCOMP_SET_MODE_FILTER")?;
    let program = std::ptr::from_ref(program);
    // SAFETY: the kernel reads the program and its steps, which the caller has until the call has returned.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(result)) }
}

/// Whether an fd is one of [`ask_about_listen`].
pub fn is_asked(fd: impl AsFd) -> bool {
    // A file of a file system in user space might answer nothing.
    let link = std::fs::read_link(format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd()));
    if link.is_ok_and(|link| !link.starts_with("anon_inode:seccomp notify")) {
        return false;
    }
    // No call has this number; every other kind of file says `ENOTTY`.
    let mut id = 0_u64;
    let asked = ioctl(fd.as_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id);
    asked.map_or_else(|error| error.raw_os_error() == Some(libc::ENOENT), |_| true)
}

/// A listen(2) that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    id: u64,
    /// The thread that called, in the PID namespace of this process; 0 when it cannot be seen from here.
    pub thread: u32,
    /// Its argument.
    pub fd: i32,
    /// Whether it is a listen(2): a filter that somebody else has made may ask about other calls.
    pub is_listen: bool,
}

/// What there is on a fd of [`ask_about_listen`].
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// An answer is due.
    Call(Call),
    /// Nothing now.
    Nothing,
    /// Nobody is left who could call.
    Ended,
}

/// The answer to a [`Call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The kernel does what it would have done.
    Continue,
    /// The call has been done.
    Done,
    /// The call fails with this errno.
    Fail(i32),
}

/// Takes the next call, without waiting.
///
/// # Errors
///
/// As ioctl(2) `SECCOMP_IOCTL_NOTIF_RECV`.
pub fn next(fd: impl AsFd) -> io::Result<Next> {
    // Its ioctl would wait, and on some kernels for ever, where there is no call.
    let mut polled = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    point("poll")?;
    poll(&mut polled, PollTimeout::ZERO)?;
    let ready = polled[0].revents().unwrap_or(PollFlags::empty());
    if !ready.contains(PollFlags::POLLIN) {
        return Ok(if ready.contains(PollFlags::POLLHUP) { Next::Ended } else { Next::Nothing });
    }
    // SAFETY: integers only, all zeroes is a value; the kernel wants zeroes.
    let mut notification: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    match ioctl(fd.as_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &mut notification) {
        Ok(_) => {}
        // It was interrupted, or killed, between poll(2) and here.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Next::Nothing),
        Err(error) => return Err(error),
    }
    let libc::seccomp_notif { id, pid: thread, flags: _, data } = notification;
    // An int, in the low half of a register.
    let is_listen = data.arch == ARCHITECTURE && i64::from(data.nr) == libc::SYS_listen;
    Ok(Next::Call(Call { id, thread, fd: data.args[0] as i32, is_listen }))
}

impl Call {
    /// Whether the caller still waits. What was found out about its thread before this is then true of it, and not
    /// of another one with its number.
    pub fn is_waiting(&self, fd: impl AsFd) -> bool {
        let mut id = self.id;
        ioctl(fd.as_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// Puts a file in the place of the one that the call is about.
    ///
    /// # Errors
    ///
    /// As ioctl(2) `SECCOMP_IOCTL_NOTIF_ADDFD`: `ENOENT` when the caller is gone.
    pub fn replace(&self, fd: impl AsFd, file: BorrowedFd<'_>, close_on_exec: CloseOnExec) -> io::Result<()> {
        let number = |fd| u32::try_from(fd).map_err(io::Error::other);
        let mut add = libc::seccomp_notif_addfd {
            id: self.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd: number(file.as_raw_fd())?,
            newfd: number(self.fd)?,
            newfd_flags: match close_on_exec {
                CloseOnExec::Yes => number(libc::O_CLOEXEC)?,
                CloseOnExec::No => 0,
            },
        };
        ioctl(fd.as_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut add).map(drop)
    }

    /// Lets the caller go on.
    ///
    /// # Errors
    ///
    /// As ioctl(2) `SECCOMP_IOCTL_NOTIF_SEND`: `ENOENT` when the caller is gone.
    pub fn answer(self, fd: impl AsFd, answer: Answer) -> io::Result<()> {
        let (error, flags) = match answer {
            Answer::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Done => (0, 0),
            Answer::Fail(errno) => (-errno, 0),
        };
        let mut response = libc::seccomp_notif_resp { id: self.id, val: 0, error, flags };
        ioctl(fd.as_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response).map(drop)
    }
}

/// `FD_CLOEXEC` of a fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseOnExec {
    /// Set.
    Yes,
    /// Not set.
    No,
}

/// An ioctl(2) on a structure of the size that the request says.
fn ioctl<T>(fd: BorrowedFd<'_>, request: libc::Ioctl, argument: &mut T) -> io::Result<i32> {
    point("ioctl SECCOMP_IOCTL_NOTIF")?;
    // SAFETY: each request here reads and writes one `T`, which lives until the call has returned.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_told_apart() {
        let (socket, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_asked(&socket));
        assert!(!is_asked(std::fs::File::open("/dev/null").unwrap()));
        assert!(!is_asked(std::fs::File::open("/proc/self/ns/net").unwrap()));
    }
}
