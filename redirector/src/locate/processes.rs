//! Processes and their threads, from `/proc`.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::OnceLock,
};

use crate::{netns::NetnsFile, sys::namespace::parent_namespace};

/// One thread of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    pub(super) process: i32,
    pub(super) thread: i32,
}

/// What can be seen of a thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It is in this one.
    In(NetnsFile),
    /// It is in the daemon's own, or has ended.
    Elsewhere,
    /// It is in some namespace that is not the daemon's, and we may not know which.
    Hidden,
}

/// Whether a file is where our own namespace's is: on nsfs, of which there is one.
fn is_nsfs(metadata: &fs::Metadata) -> bool {
    static NSFS: OnceLock<u64> = OnceLock::new();
    let own = NSFS.get().copied().or_else(|| {
        let own = fs::metadata("/proc/self/ns/net").ok()?.dev();
        Some(*NSFS.get_or_init(|| own))
    });
    own == Some(metadata.dev())
}

impl Thread {
    /// Where it is. Reading a process's namespaces needs the right to trace it (ptrace(2), "Ptrace access mode
    /// checking"), which a daemon with fewer capabilities than that process has not. Its network files need no
    /// such right, and their inodes are a namespace's own: so such a process can at least be known to be in ours.
    pub(super) fn netns(self) -> Seen {
        let Self { process, thread } = self;
        match fs::metadata(format!("/proc/{process}/task/{thread}/ns/net")) {
            Ok(metadata) if is_nsfs(&metadata) => {
                Seen::In(NetnsFile { dev: metadata.dev(), inode: metadata.ino() })
            }
            // Linux 5.10 says nothing of a right that is missing: it stops at the link.
            Ok(_) => self.is_elsewhere(),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => self.is_elsewhere(),
            Err(_) => Seen::Elsewhere,
        }
    }

    /// Of one whose namespace may not be known.
    fn is_elsewhere(self) -> Seen {
        let Self { process, thread } = self;
        let devices = |of: String| Some(fs::metadata(of + "/net/dev").ok()?.ino());
        let own = devices("/proc/self".into());
        match devices(format!("/proc/{process}/task/{thread}")) {
            None => Seen::Elsewhere,
            theirs if theirs == own => Seen::Elsewhere,
            Some(_) => Seen::Hidden,
        }
    }
}

/// Gives `None` where the process has ended meanwhile. What else goes wrong, above all a full fd table, is an
/// error: what could not be read must not count as absent.
pub(super) fn unless_ended<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        // `EINVAL` is what the mountinfo of a process that is ending says (fs/proc_namespace.c).
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH | libc::EINVAL) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The entries of a directory of `/proc` that are numbers; its fd is closed before they are looked at.
fn numbers(directory: &str) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

/// Every process but this one: our own threads enter namespaces for a moment, and that keeps nothing alive.
pub(super) fn processes() -> io::Result<Vec<i32>> {
    let own = i32::try_from(std::process::id()).expect("a process id");
    let mut processes = numbers("/proc")?;
    processes.retain(|pid| *pid != own);
    Ok(processes)
}

/// A process's number in our PID namespace, and in each below that it is in (`NSpid` of proc_pid_status(5); Linux 4.1).
pub(super) fn numbers_of(pid: i32) -> io::Result<Vec<i32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    Ok(numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect())
}

/// Our number of the process that `engine`, which is in a PID namespace below ours, calls `pid`. `None` when there is none.
pub(super) fn called_by(engine: i32, pid: i32) -> io::Result<Option<i32>> {
    let level = numbers_of(engine)?.len();
    let Some(place) = level.checked_sub(1) else { return Ok(None) };
    let namespace = pid_namespace(engine, 0)?;
    for process in processes()? {
        let numbers = unless_ended(numbers_of(process))?.unwrap_or_default();
        if numbers.get(place) != Some(&pid) {
            continue;
        }
        // In another one at the same level that number is another process.
        if unless_ended(pid_namespace(process, numbers.len() - level))? == Some(namespace) {
            return Ok(Some(process));
        }
    }
    Ok(None)
}

/// Device and inode of a process's PID namespace, or of the one so many above it.
fn pid_namespace(process: i32, above: usize) -> io::Result<(u64, u64)> {
    let mut namespace = File::open(format!("/proc/{process}/ns/pid"))?;
    for _ in 0..above {
        namespace = parent_namespace(&namespace)?.into();
    }
    let metadata = namespace.metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The threads of a process: each can be in a namespace of its own. None when it has ended.
pub(super) fn threads(process: i32) -> io::Result<Vec<Thread>> {
    let threads = unless_ended(numbers(&format!("/proc/{process}/task")))?.unwrap_or_default();
    Ok(threads.into_iter().map(|thread| Thread { process, thread }).collect())
}

/// The mount tables of these processes, one for each mount namespace and root directory: a table has only the
/// mounts that are below its process's root.
pub(super) fn mount_tables(processes: &[i32]) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let table = |pid: &i32| {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
        let root = fs::read_link(format!("/proc/{pid}/root")).ok()?;
        seen.insert((namespace, root)).then(|| PathBuf::from(format!("/proc/{pid}/mountinfo")))
    };
    processes.iter().filter_map(table).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_a_pid_namespace_below_is_found_by_its_number_there() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(!numbers_of(own).unwrap().is_empty());
        assert!(numbers_of(i32::MAX).is_err());
        assert_eq!(called_by(own, i32::MAX).unwrap(), None);
    }

    #[test]
    fn an_ended_process_is_no_error_and_a_full_fd_table_is_one() {
        let result = |errno| unless_ended::<()>(Err(io::Error::from_raw_os_error(errno)));
        assert!(result(libc::ESRCH).unwrap().is_none());
        assert!(result(libc::ENOENT).unwrap().is_none());
        assert_eq!(result(libc::EMFILE).unwrap_err().raw_os_error(), Some(libc::EMFILE));
        assert_eq!(threads(i32::MAX).unwrap(), []);
    }
}
