//! What proves that a namespace is still used by somebody else than us.
//!
//! A namespace lives as long as a task is in it, an nsfs mount or fd refers to it, or a socket is in it. Ours
//! do not count, and nobody's sockets do: a namespace that has lost its last process and mount cannot be
//! entered by name any more. Of fds only that one counts by which it was named, as LXC and systemd hold namespaces: to
//! look for others would be to look at every file of every process. The kernel tells nobody while our listeners
//! hold it (Linux 6.19 will), so this is read from `/proc`.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    mounts,
    open::is_file,
    processes::{self, Seen, Thread, unless_ended},
};
use crate::{
    netns::{NetnsFile, ProcessLink},
    sys::namespace::pidfd_open,
};

/// Somebody who keeps a namespace.
#[derive(Debug)]
pub(super) enum Witness {
    /// The daemon itself is in it.
    Daemon,
    /// It is mounted, as this mount table says.
    Mount(PathBuf),
    /// A thread is in it; the pidfd is of its process.
    Process(i32, i32, OwnedFd),
    /// A process has it open, by which it was named.
    Named(Arc<[ProcessLink]>),
}

/// Mount tables as they were read last. Those that tell when they change are read again only then.
#[derive(Debug, Default)]
pub(super) struct Tables {
    telling: Vec<PathBuf>,
    read: HashMap<PathBuf, HashSet<NetnsFile>>,
}

impl Tables {
    /// Of these somebody will say that they have changed.
    pub(super) fn telling(telling: Vec<PathBuf>) -> Self {
        Self { telling, read: HashMap::new() }
    }

    /// A look at all witnesses begins.
    pub(super) fn begin_look(&mut self) {
        self.read.retain(|table, _| self.telling.contains(table));
    }

    /// One of them has changed.
    pub(super) fn changed(&mut self) {
        self.read.clear();
    }

    fn mounts(&mut self, table: &Path, file: NetnsFile) -> bool {
        mounts(&mut self.read, table, file)
    }

    /// A witness that needs no scan: where a namespace is mounted, as a table says that will tell when it is not any more.
    pub(super) fn witness(&mut self, file: NetnsFile) -> Option<Witness> {
        let table = self.telling.iter().find(|table| mounts(&mut self.read, table, file))?;
        Some(Witness::Mount(table.clone()))
    }
}

/// Whether a table has a namespace. Reads it where it has not been read.
fn mounts(read: &mut HashMap<PathBuf, HashSet<NetnsFile>>, table: &Path, file: NetnsFile) -> bool {
    if let Some(mounted) = read.get(table) {
        return mounted.contains(&file);
    }
    let mounted: HashSet<_> = mounts::mounted(table).unwrap_or_default().into_iter().collect();
    let is_there = mounted.contains(&file);
    read.insert(table.to_owned(), mounted);
    is_there
}

impl Witness {
    /// Whether it still does. Costs one look.
    pub(super) fn holds(&self, file: NetnsFile, tables: &mut Tables) -> bool {
        match self {
            Self::Daemon => true,
            Self::Mount(table) => tables.mounts(table, file),
            Self::Process(process, thread, _) => {
                Thread { process: *process, thread: *thread }.netns() == Seen::In(file)
            }
            Self::Named(links) => links.iter().any(|link| link.leads_to() == Some(file)),
        }
    }
}

/// What a scan has found.
#[derive(Debug, Default)]
pub(super) struct Witnesses {
    /// One for each namespace that has one.
    pub(super) of: HashMap<NetnsFile, Witness>,
    /// Processes that may be in any of the others: their namespace is hidden from us.
    pub(super) hidden: usize,
}

/// Looks for a witness of each of these namespaces. At mounts before processes, and at every process only when
/// it must.
///
/// # Errors
///
/// When `/proc` cannot be read to the end, as with a full fd table: then absence means nothing.
pub(super) fn find(wanted: &HashSet<NetnsFile>) -> io::Result<Witnesses> {
    let mut found = Witnesses::default();
    let mut missing = wanted.clone();
    if let Some(own) = missing.iter().find(|file| is_file(Path::new("/proc/self/ns/net"), **file)).copied() {
        missing.remove(&own);
        found.of.insert(own, Witness::Daemon);
    }
    find_mounts(mounts::own_tables(), &mut missing, &mut found)?;
    if missing.is_empty() {
        return Ok(found);
    }
    let processes = processes::processes()?;
    find_mounts(processes::mount_tables(&processes), &mut missing, &mut found)?;
    for process in processes {
        if missing.is_empty() {
            break;
        }
        for thread in processes::threads(process)? {
            find_thread(thread, &mut missing, &mut found)?;
        }
    }
    Ok(found)
}

fn find_mounts(
    tables: impl IntoIterator<Item = PathBuf>,
    missing: &mut HashSet<NetnsFile>,
    found: &mut Witnesses,
) -> io::Result<()> {
    for table in tables {
        if missing.is_empty() {
            break;
        }
        // A process may be gone by now; then its table is too.
        let mounted = match mounts::mounted(&table) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
            result => unless_ended(result)?.unwrap_or_default(),
        };
        for file in mounted {
            if missing.remove(&file) {
                found.of.insert(file, Witness::Mount(table.clone()));
            }
        }
    }
    Ok(())
}

fn find_thread(thread: Thread, missing: &mut HashSet<NetnsFile>, found: &mut Witnesses) -> io::Result<()> {
    let file = match thread.netns() {
        Seen::Elsewhere => return Ok(()),
        Seen::Hidden => {
            found.hidden += 1;
            return Ok(());
        }
        Seen::In(file) if !missing.contains(&file) => return Ok(()),
        Seen::In(file) => file,
    };
    if let Some(pidfd) = unless_ended(pidfd_open(thread.process))?
        // The number was this process's before the pidfd and still is.
        && thread.netns() == Seen::In(file)
    {
        missing.remove(&file);
        found.of.insert(file, Witness::Process(thread.process, thread.thread, pidfd));
    }
    Ok(())
}

/// Whether absence from `/proc` means anything: it does only when `/proc` shows the initial PID namespace, and
/// where PID 1 is and what it has mounted can be seen.
///
/// # Errors
///
/// Says what cannot be seen.
pub fn sees_host() -> Result<(), String> {
    /// `PROC_PID_INIT_INO`, include/linux/proc_ns.h: the initial PID namespace always has this inode.
    const INITIAL: &str = "pid:[4026531836]";
    let own = fs::read_link("/proc/self/ns/pid").map_err(|error| format!("/proc/self/ns/pid: {error}"))?;
    if own != Path::new(INITIAL) {
        return Err("the daemon is not in the initial PID namespace".into());
    }
    if (Thread { process: 1, thread: 1 }).netns() == Seen::Hidden {
        return Err("PID 1 is in another network namespace, which cannot be seen".into());
    }
    fs::read("/proc/1/mountinfo").map_err(|error| format!("/proc/1/mountinfo: {error}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_of_this_process_has_a_witness_and_a_made_up_one_has_none() {
        let own = NetnsFile::of(fs::File::open("/proc/self/ns/net").unwrap()).unwrap();
        let none = NetnsFile { inode: 1, ..own };
        let found = find(&HashSet::from([own, none])).unwrap().of;
        assert_eq!(found.len(), 1);
        assert!(found[&own].holds(own, &mut Tables::default()));
    }
}
