//! Links of procfs that lead to what a process has.

use std::{
    ffi::OsString,
    io,
    os::fd::{AsFd, OwnedFd},
};

use nix::{fcntl::AtFlags, sys::stat::fstatat};

use super::NetnsFile;

/// A link below a process's directory in procfs, as `net` in `/proc/PID/ns`. The directory is held, and means that
/// process for ever, whoever has its number later. It keeps nothing of the process.
#[derive(Debug)]
pub struct ProcessLink {
    directory: OwnedFd,
    name: OsString,
}

impl ProcessLink {
    /// A link in an open directory.
    #[must_use]
    pub fn new(directory: OwnedFd, name: impl Into<OsString>) -> Self {
        Self { directory, name: name.into() }
    }

    /// Whether it is the namespace that a process, or a thread, is in; else it is one that it has open.
    #[must_use]
    pub fn is_of_member(&self) -> bool {
        self.name == "net"
    }

    /// The namespace that it leads to now. `None` when that is not known, or the process has ended.
    #[must_use]
    pub fn leads_to(&self) -> Option<NetnsFile> {
        let file = fstatat(self.directory.as_fd(), &*self.name, AtFlags::empty()).ok()?;
        Some(NetnsFile { dev: file.st_dev, inode: file.st_ino })
    }

    /// Whether it is still there: the process has not ended, or is a zombie, and its number nobody else's.
    pub(super) fn is_there(&self) -> io::Result<bool> {
        match fstatat(self.directory.as_fd(), &*self.name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(nix::errno::Errno::ENOENT | nix::errno::Errno::ESRCH) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, process::Command};

    use super::*;

    #[test]
    fn a_link_is_gone_with_its_process() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let directory = File::open(format!("/proc/{}/ns", child.id())).unwrap();
        let link = ProcessLink::new(directory.into(), "net");
        assert!(link.is_there().unwrap() && link.is_of_member());
        assert_eq!(link.leads_to(), Some(NetnsFile::of(File::open("/proc/self/ns/net").unwrap()).unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!link.is_there().unwrap() && link.leads_to().is_none());
    }
}
