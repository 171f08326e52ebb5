//! Calls about namespaces and processes.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use super::{inject::point, owned};

/// `NS_GET_NSTYPE`, include/uapi/linux/nsfs.h.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
/// `SIOCGSKNS`, include/uapi/linux/sockios.h.
const SIOCGSKNS: libc::Ioctl = 0x894c;

/// The `CLONE_NEW…` flag that says which kind of namespace an nsfs fd is. Minimum kernel 4.11.
///
/// # Errors
///
/// `ENOTTY` for an fd of anything else.
pub fn namespace_type(fd: impl AsFd) -> io::Result<i32> {
    point("ioctl NS_GET_NSTYPE")?;
    // SAFETY: this request takes no argument.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `NS_GET_PARENT`, include/uapi/linux/nsfs.h.
const NS_GET_PARENT: libc::Ioctl = 0xb702;

/// An nsfs fd of the PID or user namespace around one. Minimum kernel 4.9.
///
/// # Errors
///
/// `EPERM`: it is outside of ours.
pub fn parent_namespace(fd: impl AsFd) -> io::Result<OwnedFd> {
    point("ioctl NS_GET_PARENT")?;
    // SAFETY: this request takes no argument.
    let result = unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), NS_GET_PARENT) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(result.into())) }
}

/// An nsfs fd of the network namespace that a socket lives in. Needs CAP_NET_ADMIN there. Minimum kernel 4.10.
///
/// # Errors
///
/// As ioctl(2) `SIOCGSKNS`.
pub fn netns_of(socket: impl AsFd) -> io::Result<OwnedFd> {
    point("ioctl SIOCGSKNS")?;
    // SAFETY: this request takes no argument.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(result.into())) }
}

/// An fd that is readable when the process has ended, and that never means another process. Minimum kernel 5.3.
///
/// # Errors
///
/// `ESRCH`: no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    point("pidfd_open")?;
    // SAFETY: takes integers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(result)) }
}

/// As [`pidfd_open`], of any thread. Minimum kernel 6.9 (`EINVAL` before).
///
/// # Errors
///
/// `ESRCH`: no such thread.
pub fn pidfd_open_thread(thread: i32) -> io::Result<OwnedFd> {
    // `PIDFD_THREAD`, include/uapi/linux/pidfd.h.
    let flags = libc::O_EXCL;
    point("pidfd_open PIDFD_THREAD")?;
    // SAFETY: takes integers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, thread, flags) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(result)) }
}

/// Duplicates another process's fd. Needs the right to trace it. Minimum kernel 5.6.
///
/// # Errors
///
/// As pidfd_getfd(2).
pub fn pidfd_getfd(pidfd: impl AsFd, fd: i32) -> io::Result<OwnedFd> {
    point("pidfd_getfd")?;
    // SAFETY: takes integers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_fd().as_raw_fd(), fd, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(result)) }
}

/// Sends a signal to the process that a pidfd means, and to no other. Minimum kernel 5.1.
///
/// # Errors
///
/// `ESRCH`: it has ended.
pub fn pidfd_send_signal(pidfd: impl AsFd, signal: i32) -> io::Result<()> {
    point("pidfd_send_signal")?;
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: integers, and a null pointer that the call takes for "as kill(2)".
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal, no_info, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Types of kcmp(2), include/uapi/linux/kcmp.h.
mod kind {
    pub(super) const FILE: i32 = 0;
    pub(super) const FILES: i32 = 2;
    pub(super) const EPOLL_TARGET: i32 = 7;
}

/// `struct kcmp_epoll_slot`.
#[repr(C)]
struct EpollSlot {
    epoll: u32,
    target: u32,
    offset: u32,
}

/// An fd of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileOf {
    /// The thread, by its number in this PID namespace.
    pub thread: i32,
    /// Its fd.
    pub fd: i32,
}

/// Whether two fds are the same open file: one is a duplicate of the other. Takes neither. Needs the right to trace
/// both threads.
///
/// # Errors
///
/// As kcmp(2): `ENOSYS` on a kernel without `CONFIG_KCMP`, `EBADF`, `ESRCH`.
pub fn is_same_file(one: FileOf, other: FileOf) -> io::Result<bool> {
    let index = |fd| u64::try_from(fd).map_err(io::Error::other);
    compare((one.thread, other.thread), kind::FILE, index(one.fd)?, index(other.fd)?)
}

/// Whether two threads have the same table of fds.
///
/// # Errors
///
/// As [`is_same_file`].
pub fn is_same_table(thread: i32, other: i32) -> io::Result<bool> {
    compare((thread, other), kind::FILES, 0, 0)
}

/// Whether an epoll file waits for an fd of the same thread, registered under its number. `offset` counts the files
/// that were registered under that number. Minimum kernel 4.13.
///
/// # Errors
///
/// As [`is_same_file`]; `ENOENT` when there are no more registrations of that number.
pub fn is_polled(file: FileOf, epoll: i32, offset: u32) -> io::Result<bool> {
    let number = |fd| u32::try_from(fd).map_err(io::Error::other);
    let slot = EpollSlot { epoll: number(epoll)?, target: number(file.fd)?, offset };
    let index = u64::from(slot.target);
    compare((file.thread, file.thread), kind::EPOLL_TARGET, index, std::ptr::from_ref(&slot).addr() as u64)
}

fn compare((one, other): (i32, i32), kind: i32, index: u64, other_index: u64) -> io::Result<bool> {
    point("kcmp")?;
    // SAFETY: takes integers, and for `EPOLL_TARGET` the address of an `EpollSlot`, which its caller has until the
    // call has returned.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, one, other, kind, index, other_index) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result == 0) }
}
