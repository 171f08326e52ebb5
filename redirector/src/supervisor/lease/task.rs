//! The files of somebody else's threads, as `/proc` shows them.
//!
//! A thread can have a table of fds of its own (`unshare(CLONE_FILES)`), and a process whose first thread has ended
//! has none where one looks for it: so files are looked for by thread.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
};

use nix::sys::stat::fstat;

use crate::sys::namespace::{pidfd_getfd, pidfd_open, pidfd_open_thread};

/// A thread, by its number in this PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task(pub(super) i32);

/// What an fd of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    /// A socket with this inode.
    Socket(u64),
    /// Something else.
    Other,
    /// Nothing: it is not open.
    None,
}

impl Task {
    /// The process that it is of.
    pub(super) fn process(self) -> io::Result<i32> {
        let tgid = self.status("Tgid:")?;
        tgid.parse().map_err(io::Error::other)
    }

    /// The user that it runs as (the real one).
    pub(super) fn user(self) -> io::Result<u32> {
        self.status("Uid:")?.parse().map_err(io::Error::other)
    }

    /// The first word of a line of its status.
    fn status(self, field: &str) -> io::Result<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.map(Into::into).ok_or_else(|| io::Error::other(format!("no {field} in its status")))
    }

    /// What one of its fds is.
    ///
    /// # Errors
    ///
    /// When it cannot be seen, which says nothing about the fd.
    pub(super) fn file(self, fd: i32) -> io::Result<File> {
        match fs::read_link(format!("/proc/{}/fd/{fd}", self.0)) {
            Ok(target) => Ok(parse(&target.to_string_lossy())),
            // The task is there and the fd is not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::read_dir(format!("/proc/{}/fd", self.0)).map(|_| File::None)
            }
            Err(error) => Err(error),
        }
    }

    /// `O_…` flags of an fd, close-on-exec included.
    pub(super) fn flags(self, fd: i32) -> io::Result<i32> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.0))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok());
        flags.ok_or_else(|| io::Error::other("no flags in its fdinfo"))
    }

    /// Whether one of its epoll files waits for an fd. Such a registration is of the file, not of the number.
    pub(super) fn polls(self, fd: i32) -> io::Result<bool> {
        let registered = |info: &str| {
            let mut targets = info.lines().filter_map(|line| line.strip_prefix("tfd:"));
            targets.any(|line| line.split_whitespace().next().and_then(|word| word.parse().ok()) == Some(fd))
        };
        let infos = fs::read_dir(format!("/proc/{}/fdinfo", self.0))?.flatten();
        Ok(infos.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|info| registered(&info)))
    }

    /// Its sockets: the number of the fd, and the inode.
    pub(super) fn sockets(self) -> impl Iterator<Item = (i32, u64)> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.0)).into_iter().flatten().flatten();
        entries.filter_map(|entry| match parse(&fs::read_link(entry.path()).ok()?.to_string_lossy()) {
            File::Socket(inode) => Some((entry.file_name().to_str()?.parse().ok()?, inode)),
            File::Other | File::None => None,
        })
    }

    /// A duplicate of one of its sockets, which must have this inode.
    pub(super) fn take(self, fd: i32, inode: u64) -> io::Result<OwnedFd> {
        // Of the thread's own table, where the kernel knows how; of its process's table else.
        let pidfd = match pidfd_open_thread(self.0) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => pidfd_open(self.process()?)?,
            result => result?,
        };
        let file = pidfd_getfd(pidfd.as_fd(), fd)?;
        // Of the other table, or another file by now.
        if fstat(&file)?.st_ino == inode { Ok(file) } else { Err(io::Error::other("another file was got")) }
    }
}

/// What the link of an fd in `/proc` says.
fn parse(link: &str) -> File {
    let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    inode.map_or(File::Other, File::Socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn myself() -> Task {
        Task(i32::try_from(std::process::id()).unwrap())
    }

    #[test]
    fn what_is_open_is_told_from_what_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        let File::Socket(inode) = myself().file(fd).unwrap() else { panic!("a socket") };
        assert!(myself().sockets().any(|one| one == (fd, inode)));
        assert_eq!(fstat(myself().take(fd, inode).unwrap()).unwrap().st_ino, inode);
        assert!(myself().take(fd, inode + 1).is_err());
        assert_ne!(myself().flags(fd).unwrap() & libc::O_CLOEXEC, 0);
        assert_eq!(myself().file(1_000_000).unwrap(), File::None);
        assert_eq!(myself().file(fs::File::open("/dev/null").unwrap().as_raw_fd()).unwrap(), File::Other);
        assert!(Task(i32::MAX).file(fd).is_err());
        assert_eq!(myself().user().unwrap(), nix::unistd::getuid().as_raw());
        assert_eq!(myself().process().unwrap(), myself().0);
    }

    #[test]
    fn a_socket_that_is_registered_with_epoll_is_known() {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        assert!(!myself().polls(listener.as_raw_fd()).unwrap());
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
        assert!(myself().polls(listener.as_raw_fd()).unwrap());
    }
}
