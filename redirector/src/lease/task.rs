//! The files of somebody else's threads, as `/proc` shows them.
//!
//! A thread can have a table of fds of its own (`unshare(CLONE_FILES)`), and a process whose first thread has ended
//! has none where one looks for it: so files are looked for by thread.

use std::{
    fs,
    io::{self, Read as _},
    os::fd::AsFd as _,
};

use nix::sys::stat::fstat;

use super::budget::Budget;
use crate::sys::{
    aside::{Aside, Taken},
    namespace::{FileOf, is_polled, pidfd_open, pidfd_open_thread},
};

/// A thread, by its number in this PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Task(pub(crate) i32);

/// A process, and no other one that gets its number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pid: i32,
    /// In ticks since the machine has booted.
    started: u64,
}

impl Process {
    /// The one that has this number now.
    pub(crate) fn at(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // Behind the name, which may have anything in it.
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields);
        let started = fields.and_then(|fields| fields.split_whitespace().nth(19)?.parse().ok());
        let started = started.ok_or_else(|| io::Error::other("no time of its start in its stat"))?;
        Ok(Self { pid, started })
    }

    /// Its number in this PID namespace.
    pub(crate) fn number(self) -> i32 {
        self.pid
    }

    /// Whether it has not ended.
    pub(crate) fn is_there(self) -> bool {
        Self::at(self.pid).is_ok_and(|now| now == self)
    }

    /// One that has ended.
    #[cfg(test)]
    pub(crate) fn ended(number: usize) -> Self {
        Self { pid: i32::MAX, started: number as u64 }
    }
}

/// What an fd of a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FdKind {
    /// A socket with this inode.
    Socket(u64),
    /// An epoll file.
    Epoll,
    /// Something else.
    Other,
    /// Nothing: it is not open.
    None,
}

impl Task {
    /// The process that it is of.
    pub(crate) fn process(self) -> io::Result<i32> {
        let tgid = self.status("Tgid:")?;
        tgid.parse().map_err(io::Error::other)
    }

    /// The user that it runs as (the real one).
    pub(crate) fn user(self) -> io::Result<u32> {
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
    pub(crate) fn file(self, fd: i32) -> io::Result<FdKind> {
        match fs::read_link(format!("/proc/{}/fd/{fd}", self.0)) {
            Ok(target) => Ok(parse(&target.to_string_lossy())),
            // The task is there and the fd is not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::read_dir(format!("/proc/{}/fd", self.0)).map(|_| FdKind::None)
            }
            Err(error) => Err(error),
        }
    }

    /// `O_…` flags of an fd, close-on-exec included.
    pub(crate) fn flags(self, fd: i32) -> io::Result<i32> {
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{fd}", self.0))?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|octal| i32::from_str_radix(octal.trim(), 8).ok());
        flags.ok_or_else(|| io::Error::other("no flags in its fdinfo"))
    }

    /// Whether one of its epoll files waits for an fd. Such a registration is of the file, not of the number.
    ///
    /// # Errors
    ///
    /// When that cannot be seen: it has too many files, or waits for too many.
    pub(crate) fn polls(self, fd: i32, budget: &mut Budget) -> io::Result<bool> {
        for (epoll, file) in self.files() {
            if !budget.spend() {
                return Err(io::Error::other("it has more files than are looked at"));
            }
            if file == FdKind::Epoll && self.is_registered(fd, epoll)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_registered(self, fd: i32, epoll: i32) -> io::Result<bool> {
        /// Files that were registered under one number, of which only the last can still have it.
        const OFFSETS: u32 = 16;
        let file = FileOf { thread: self.0, fd };
        for offset in 0..OFFSETS {
            match is_polled(file, epoll, offset) {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(error) => match error.raw_os_error() {
                    // No more of this number; the epoll file has been closed meanwhile.
                    Some(libc::ENOENT | libc::EBADF | libc::EINVAL) => return Ok(false),
                    Some(libc::ENOSYS) => return self.is_listed(fd, epoll),
                    _ => return Err(error),
                },
            }
        }
        Err(io::Error::other("too many files are registered under its number"))
    }

    /// [`Self::is_registered`] on a kernel without kcmp(2): as far as a text of a bounded length tells.
    fn is_listed(self, fd: i32, epoll: i32) -> io::Result<bool> {
        /// For some ten thousand registrations.
        const TEXT: u64 = 1 << 20;
        let mut info = String::new();
        let file = fs::File::open(format!("/proc/{}/fdinfo/{epoll}", self.0))?;
        file.take(TEXT).read_to_string(&mut info)?;
        if info.len() as u64 == TEXT {
            return Err(io::Error::other("it waits for more files than are looked at"));
        }
        let mut targets = info.lines().filter_map(|line| line.strip_prefix("tfd:"));
        Ok(targets.any(|line| line.split_whitespace().next().and_then(|word| word.parse().ok()) == Some(fd)))
    }

    /// Its fds, and what they are. One that is closed meanwhile is left out.
    pub(crate) fn files(self) -> impl Iterator<Item = (i32, FdKind)> {
        let entries = fs::read_dir(format!("/proc/{}/fd", self.0)).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let fd = entry.file_name().to_str()?.parse().ok()?;
            Some((fd, parse(&fs::read_link(entry.path()).ok()?.to_string_lossy())))
        })
    }

    /// Whether it has any file that may be looked at. A thread that has ended has none; nor has one with capabilities
    /// that the daemon has not, as process 1 may have: a program without rights is never one.
    ///
    /// # Errors
    ///
    /// When that cannot be seen.
    pub(crate) fn has_files(self) -> io::Result<bool> {
        match fs::read_dir(format!("/proc/{}/fd", self.0)) {
            Ok(mut files) => Ok(files.next().is_some_and(|file| file.is_ok())),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ESRCH | libc::EACCES | libc::EPERM) => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// A duplicate of one of its sockets, which must have this inode.
    pub(crate) fn take(self, aside: &Aside, fd: i32, inode: u64) -> io::Result<Taken<'_>> {
        // Of the thread's own table, where the kernel knows how; of its process's table else.
        let pidfd = match pidfd_open_thread(self.0) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => pidfd_open(self.process()?)?,
            result => result?,
        };
        let file = aside.take(pidfd.as_fd(), fd)?;
        // Of the other table, or another file by now.
        if fstat(&file)?.st_ino == inode { Ok(file) } else { Err(io::Error::other("another file was got")) }
    }
}

/// What the link of an fd in `/proc` says.
fn parse(link: &str) -> FdKind {
    let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
    match inode {
        Some(inode) => FdKind::Socket(inode),
        None if link == "anon_inode:[eventpoll]" => FdKind::Epoll,
        None => FdKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;
    use crate::sys::aside;

    fn myself() -> Task {
        Task(i32::try_from(std::process::id()).unwrap())
    }

    #[test]
    fn what_is_open_is_told_from_what_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        let FdKind::Socket(inode) = myself().file(fd).unwrap() else { panic!("a socket") };
        assert!(myself().files().any(|one| one == (fd, FdKind::Socket(inode))));
        let taken = aside::run(&[], move |aside, _| {
            let right = fstat(myself().take(aside, fd, inode).unwrap()).unwrap().st_ino;
            (right, myself().take(aside, fd, inode + 1).is_err())
        });
        assert_eq!(taken.unwrap().result.recv().unwrap(), (inode, true));
        assert_ne!(myself().flags(fd).unwrap() & libc::O_CLOEXEC, 0);
        assert_eq!(myself().file(1_000_000).unwrap(), FdKind::None);
        assert_eq!(myself().file(fs::File::open("/dev/null").unwrap().as_raw_fd()).unwrap(), FdKind::Other);
        assert!(Task(i32::MAX).file(fd).is_err());
        assert_eq!(myself().user().unwrap(), nix::unistd::getuid().as_raw());
        assert_eq!(myself().process().unwrap(), myself().0);
    }

    #[test]
    fn a_process_is_known_by_its_number_and_its_start() {
        let of = |pid: u32| Process::at(i32::try_from(pid).unwrap());
        let own = of(std::process::id()).unwrap();
        assert_eq!(of(std::process::id()).unwrap(), own);
        let mut other =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(of(other.id()).unwrap().started >= own.started);
        let before = of(other.id()).unwrap();
        assert!(before.is_there());
        drop(other.stdin.take());
        other.wait().unwrap();
        assert!(!before.is_there());
        assert!(of(other.id()).is_err());
    }

    #[test]
    fn a_socket_that_is_registered_with_epoll_is_known_whatever_else_is() {
        use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let polls = || myself().polls(fd, &mut Budget::new()).unwrap();
        assert!(!polls());
        let others: Vec<_> = (0..1000).map(|_| listener.try_clone().unwrap()).collect();
        others.iter().for_each(|other| epoll.add(other, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap());
        assert!(!polls());
        epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0)).unwrap();
        assert!(polls());
        assert!(myself().is_listed(fd, epoll.0.as_raw_fd()).unwrap());
        epoll.delete(&listener).unwrap();
        assert!(!polls());
        assert!(!myself().is_listed(fd, epoll.0.as_raw_fd()).unwrap());
    }

    #[test]
    fn more_files_than_are_looked_at_are_an_error() {
        let _files = [fs::File::open("/dev/null").unwrap(), fs::File::open("/dev/null").unwrap()];
        assert!(myself().polls(0, &mut Budget::of(1)).is_err());
    }
}
