//! Going along a path, to see which processes it leads through.
//!
//! In procfs a number is a process for as long as that lives, and then another one. So a path that leads through
//! procfs by a link of a process is not a name: it is that process, and means nothing when it has ended.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2, readlinkat},
    sys::{
        stat::{Mode, SFlag, fstat},
        statfs::{PROC_SUPER_MAGIC, fstatfs},
    },
};

use crate::netns::ProcessLink;

/// `MAXSYMLINKS`, include/linux/namei.h.
const MAX_LINKS: usize = 40;

const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// Holds what is at a path, which is not opened: a watchdog would begin to count, a FIFO would wait. Gives every link of a
/// process that the path leads through.
///
/// # Errors
///
/// As open(2).
pub(super) fn hold_along(path: &Path) -> io::Result<(OwnedFd, Vec<ProcessLink>)> {
    let how = OpenHow::new().flags(LOOK).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(nix::fcntl::AT_FDCWD, path, how) {
        Ok(held) => Ok((held, Vec::new())),
        Err(Errno::ELOOP) => walk(path),
        // Of a sandbox that does not know the call.
        Err(Errno::ENOSYS | Errno::EPERM) => walk(path),
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a namespace that is held: exactly that, whatever its path leads to by now.
///
/// # Errors
///
/// As open(2).
pub(super) fn open_held(held: &OwnedFd) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", held.as_raw_fd()))
}

fn walk(path: &Path) -> io::Result<(OwnedFd, Vec<ProcessLink>)> {
    let mut links = Vec::new();
    let mut left: VecDeque<OsString> = VecDeque::new();
    let mut at = root()?;
    let mut followed = 0;
    push(&mut left, path);
    while let Some(name) = left.pop_front() {
        let next = openat(&at, &*name, LOOK | OFlag::O_NOFOLLOW, Mode::empty())?;
        if !is_link(&next)? {
            at = next;
            continue;
        }
        followed += 1;
        if followed > MAX_LINKS {
            return Err(Errno::ELOOP.into());
        }
        if is_of_process(&at, &name)? {
            let next = openat(&at, &*name, LOOK, Mode::empty())?;
            links.push(ProcessLink::new(std::mem::replace(&mut at, next), name));
            continue;
        }
        let text = readlinkat(&next, "")?;
        if Path::new(&text).is_absolute() {
            at = root()?;
        }
        push(&mut left, Path::new(&text));
    }
    Ok((at, links))
}

fn root() -> io::Result<OwnedFd> {
    Ok(open("/", LOOK | OFlag::O_DIRECTORY, Mode::empty())?)
}

/// What a path says comes before what is left.
fn push(left: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => left.push_front(name.to_owned()),
            Component::ParentDir => left.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn is_link(fd: impl AsFd) -> io::Result<bool> {
    Ok(SFlag::from_bits_truncate(fstat(fd)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFLNK)
}

/// Whether a link in a directory is one that procfs follows by itself, not by a text (symlink(7), "magic links").
fn is_of_process(directory: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    if fstatfs(directory)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Ok(false);
    }
    let how = OpenHow::new().flags(LOOK).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Those of texts are few and lead to directories of processes: taking `self` for a process would be right, too.
    Ok(openat2(directory, name, how).is_err())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process};

    use super::*;
    use crate::netns::NetnsFile;

    fn file(path: &str) -> NetnsFile {
        NetnsFile::of(File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn every_way_through_a_process_is_seen_and_leads_to_the_same_file() {
        let (pid, dir) = (process::id(), tempfile::tempdir().unwrap());
        let own = File::open("/proc/self/ns/net").unwrap();
        let by_link = dir.path().join("link");
        symlink(format!("/proc/{pid}/ns/net"), &by_link).unwrap();
        let by_two = dir.path().join("two");
        symlink("./../../../../../../proc/self/ns", &by_two).unwrap();
        for path in [
            format!("/proc/{pid}/ns/net"),
            format!("/proc/{pid}/task/{pid}/ns/net"),
            "/proc/self/ns/net".into(),
            "/proc/thread-self/ns/net".into(),
            format!("/proc/self/fd/{}", own.as_raw_fd()),
            format!("/dev/fd/{}", own.as_raw_fd()),
            format!("/proc/{pid}/root/proc/{pid}/ns/net"),
            format!("/proc/{pid}/root{}", by_link.display()),
            by_link.display().to_string(),
            format!("{}/net", by_two.display()),
        ] {
            let (held, links) = hold_along(Path::new(&path)).unwrap();
            assert!(!links.is_empty(), "{path}");
            assert_eq!(NetnsFile::of(held).unwrap(), file("/proc/self/ns/net"), "{path}");
        }
    }

    #[test]
    fn a_path_through_no_process_has_no_links_and_errors_are_those_of_open() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        for path in [&plain, Path::new("/proc/self/status"), Path::new("/proc/mounts"), Path::new("/")] {
            assert!(hold_along(path).unwrap().1.is_empty(), "{}", path.display());
        }
        let round = dir.path().join("round");
        symlink(&round, &round).unwrap();
        assert_eq!(hold_along(&round).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        for path in ["/proc/self/root/no such file", "/proc/2147483647/ns/net"] {
            assert_eq!(hold_along(Path::new(path)).unwrap_err().kind(), io::ErrorKind::NotFound, "{path}");
        }
        assert_eq!(walk(&plain).unwrap().1.len(), 0);
    }
}
