//! Processes and their threads, from `/proc`.

use std::{collections::HashSet, fs, io, os::unix::fs::MetadataExt as _, path::PathBuf};

use crate::netns::NetnsFile;

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

impl Thread {
    /// Where it is. Reading a process's namespaces needs the right to trace it (ptrace(2), "Ptrace access mode
    /// checking"), which a daemon with fewer capabilities than that process has not. Its network files need no
    /// such right, and their inodes are a namespace's own: so such a process can at least be known to be in ours.
    pub(super) fn netns(self) -> Seen {
        let Self { process, thread } = self;
        match fs::metadata(format!("/proc/{process}/task/{thread}/ns/net")) {
            Ok(metadata) => Seen::In(NetnsFile { dev: metadata.dev(), inode: metadata.ino() }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let devices = |of: String| Some(fs::metadata(of + "/net/dev").ok()?.ino());
                let own = devices("/proc/self".into());
                match devices(format!("/proc/{process}/task/{thread}")) {
                    None => Seen::Elsewhere,
                    theirs if theirs == own => Seen::Elsewhere,
                    Some(_) => Seen::Hidden,
                }
            }
            Err(_) => Seen::Elsewhere,
        }
    }
}

fn numbers(directory: &str) -> impl Iterator<Item = i32> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Every process but this one: our own threads enter namespaces for a moment, and that keeps nothing alive.
pub(super) fn processes() -> impl Iterator<Item = i32> {
    let own = i32::try_from(std::process::id()).expect("a process id");
    numbers("/proc").filter(move |pid| *pid != own)
}

/// The threads of a process: each can be in a namespace of its own.
pub(super) fn threads(process: i32) -> impl Iterator<Item = Thread> {
    numbers(&format!("/proc/{process}/task")).map(move |thread| Thread { process, thread })
}

/// The mount tables of processes, one for each mount namespace.
pub(super) fn mount_tables() -> impl Iterator<Item = PathBuf> {
    let mut seen = HashSet::new();
    processes().filter_map(move |pid| {
        let namespace = fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()?;
        seen.insert(namespace).then(|| PathBuf::from(format!("/proc/{pid}/mountinfo")))
    })
}
