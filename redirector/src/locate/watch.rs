//! Learning that namespaces die.
//!
//! Each watched namespace has a witness. As long as that holds, nothing is scanned. Events make us look: a change
//! of the mount tables, the end of a witness's process; and a look at every witness each [`TICK`], because a
//! thread can change its namespace without a sound. A namespace without a witness gets a scan of its own, and
//! when a second one finds nothing either, it is dead.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    os::fd::OwnedFd,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    mounts,
    witness::{Tables, Witness, find, sees_host},
};
use crate::{
    netns::NetnsFile,
    observe::RateLimit,
    sys::{self, blocking::blocking},
};

/// Between two looks at all witnesses.
const TICK: Duration = Duration::from_secs(2);

/// Between the scan that makes a suspect and the one that confirms it: a container engine that moves a namespace
/// from a process to a mount does the second before it ends the first.
const CONFIRM: Duration = Duration::from_millis(100);

/// Tells which namespaces are watched.
#[derive(Debug)]
pub struct Watch(mpsc::UnboundedSender<Change>);

#[derive(Debug)]
enum Change {
    Add(NetnsFile),
    Remove(NetnsFile),
    Keep(HashSet<NetnsFile>),
}

impl Watch {
    /// Begins with none. The future watches, until the handle is dropped; deaths come out of the receiver, each once.
    ///
    /// Where [`sees_host`] says no, no death is ever told.
    ///
    /// # Errors
    ///
    /// When the mount tables cannot be opened.
    pub fn new()
    -> io::Result<(Self, impl Future<Output = ()> + Send + 'static, mpsc::UnboundedReceiver<NetnsFile>)> {
        let (changes, received) = mpsc::unbounded_channel();
        let (deaths, told) = mpsc::unbounded_channel();
        let mut tables = Vec::new();
        for path in mounts::own_tables() {
            match File::open(&path) {
                Ok(file) => {
                    tables.push(sys::async_fd(file, Interest::PRIORITY | Interest::ERROR)?);
                }
                Err(error) => tracing::warn!(path = %path.display(), %error, "cannot watch this mount table"),
            }
        }
        let (wake, woken) = mpsc::channel(1);
        let said_hidden = RateLimit::default();
        let watcher =
            Watcher { witnesses: HashMap::new(), received, deaths, wake, woken, tables, said_hidden };
        Ok((Self(changes), watcher.run(), told))
    }

    /// Watches a namespace. One that has died already is told of too.
    pub fn add(&self, file: NetnsFile) {
        // Who watches ends only with this handle.
        drop(self.0.send(Change::Add(file)));
    }

    /// Forgets a namespace.
    pub fn remove(&self, file: NetnsFile) {
        drop(self.0.send(Change::Remove(file)));
    }

    /// Watches these, and forgets all others.
    pub fn keep(&self, files: HashSet<NetnsFile>) {
        drop(self.0.send(Change::Keep(files)));
    }
}

/// A witness, and the task that waits for the end of its process.
#[derive(Debug)]
struct Watched {
    witness: Witness,
    _end: Option<AbortOnDropHandle<()>>,
}

struct Watcher {
    witnesses: HashMap<NetnsFile, Option<Watched>>,
    received: mpsc::UnboundedReceiver<Change>,
    deaths: mpsc::UnboundedSender<NetnsFile>,
    /// Holds one wake-up: what happens meanwhile is seen by the same look.
    wake: mpsc::Sender<()>,
    woken: mpsc::Receiver<()>,
    tables: Vec<AsyncFd<OwnedFd>>,
    said_hidden: RateLimit,
}

impl Watcher {
    async fn run(mut self) {
        let _mounts: Vec<_> = std::mem::take(&mut self.tables)
            .into_iter()
            .map(|table| AbortOnDropHandle::new(tokio::spawn(tell_changes(table, self.wake.clone()))))
            .collect();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = self.received.recv() => match change {
                    None => return,
                    Some(change) => {
                        self.apply(&change);
                        // Many at once are one look.
                        self.take_changes();
                    }
                },
                _ = self.woken.recv() => {}
                _ = tick.tick() => {}
            }
            self.look().await;
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Add(file) => drop(self.witnesses.insert(*file, None)),
            Change::Remove(file) => drop(self.witnesses.remove(file)),
            Change::Keep(files) => {
                self.witnesses.retain(|file, _| files.contains(file));
                // One that was added while these were counted may have been forgotten by the change before.
                for file in files {
                    self.witnesses.entry(*file).or_insert(None);
                }
            }
        }
    }

    /// Applies what waits, and says which namespaces it was about.
    fn take_changes(&mut self) -> HashSet<NetnsFile> {
        let mut changed = HashSet::new();
        while let Ok(change) = self.received.try_recv() {
            self.apply(&change);
            match change {
                Change::Add(file) | Change::Remove(file) => drop(changed.insert(file)),
                Change::Keep(_) => {}
            }
            // One that was added has not been looked for yet.
            let _woken: Result<_, _> = self.wake.try_send(());
        }
        changed
    }

    /// Drops witnesses that do not hold any more, and looks for others.
    async fn look(&mut self) {
        let mut tables = Tables::default();
        for (file, watched) in &mut self.witnesses {
            if watched.as_ref().is_some_and(|watched| !watched.witness.holds(*file, &mut tables)) {
                *watched = None;
            }
        }
        let wanted = self.without_witness();
        // Where absence means nothing, a scan every [`TICK`] would tell nothing.
        if wanted.is_empty() || sees_host().is_err() {
            return;
        }
        let suspects = self.scan(wanted).await;
        if suspects.is_empty() {
            return;
        }
        tokio::time::sleep(CONFIRM).await;
        let dead = self.scan(suspects).await;
        // What was removed meanwhile may have ended, and its inode may be another namespace's that was added:
        // this verdict is not about that one.
        let changed = self.take_changes();
        for dead in dead.difference(&changed).copied() {
            self.witnesses.remove(&dead);
            let _told: Result<_, _> = self.deaths.send(dead);
        }
    }

    fn without_witness(&self) -> HashSet<NetnsFile> {
        self.witnesses.iter().filter(|(_, watched)| watched.is_none()).map(|(file, _)| *file).collect()
    }

    /// Looks for witnesses of these namespaces; gives those that have none.
    async fn scan(&mut self, wanted: HashSet<NetnsFile>) -> HashSet<NetnsFile> {
        if wanted.is_empty() {
            return wanted;
        }
        let scanned = blocking(move || {
            let found = find(&wanted);
            (wanted, found)
        });
        let (mut wanted, found) = match scanned.await.and_then(|(wanted, found)| Ok((wanted, found?))) {
            Ok(scanned) => scanned,
            Err(error) => {
                tracing::warn!(%error, "scan for processes and mounts");
                return HashSet::new();
            }
        };
        if found.hidden > 0 && !wanted.iter().all(|file| found.witnesses.contains_key(file)) {
            // One of them may be what keeps it.
            if let Some(suppressed) = self.said_hidden.pass() {
                let processes = found.hidden;
                tracing::warn!(processes, suppressed, "cannot see in which namespace these processes are");
            }
            wanted.clear();
        }
        for (file, witness) in found.witnesses {
            wanted.remove(&file);
            let end = self.end_of(&witness);
            if let Some(watched) = self.witnesses.get_mut(&file) {
                *watched = Some(Watched { witness, _end: end });
            }
        }
        wanted
    }

    /// Wakes us when the witness's process ends.
    fn end_of(&self, witness: &Witness) -> Option<AbortOnDropHandle<()>> {
        let Witness::Process(_, _, pidfd) = witness else { return None };
        let pidfd = pidfd.try_clone().and_then(|fd| sys::async_fd(fd, Interest::READABLE)).ok()?;
        Some(AbortOnDropHandle::new(tokio::spawn(tell_end(pidfd, self.wake.clone()))))
    }
}

async fn tell_end(pidfd: AsyncFd<OwnedFd>, wake: mpsc::Sender<()>) {
    if pidfd.readable().await.is_ok() {
        // A full channel has a wake-up in it already.
        let _woken: Result<_, _> = wake.try_send(());
    }
}

async fn tell_changes(table: AsyncFd<OwnedFd>, wake: mpsc::Sender<()>) {
    while let Ok(mut ready) = table.ready(Interest::PRIORITY | Interest::ERROR).await {
        ready.clear_ready();
        drop(ready);
        let _woken: Result<_, _> = wake.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(inode: u64) -> NetnsFile {
        NetnsFile { dev: 4, inode }
    }

    #[tokio::test]
    async fn what_was_added_while_others_were_counted_is_watched_from_the_next_count_on() {
        let (changes, received) = mpsc::unbounded_channel();
        let (wake, woken) = mpsc::channel(1);
        let (witnesses, tables) = (HashMap::new(), Vec::new());
        let (deaths, _told) = mpsc::unbounded_channel();
        let said_hidden = RateLimit::default();
        let mut watcher = Watcher { witnesses, received, deaths, wake, woken, tables, said_hidden };
        for change in [
            Change::Add(file(1)),
            // Counted before the second one was there.
            Change::Add(file(2)),
            Change::Keep(HashSet::from([file(1)])),
            Change::Keep(HashSet::from([file(1), file(2)])),
        ] {
            changes.send(change).unwrap();
        }
        watcher.take_changes();
        let watched: HashSet<_> = watcher.witnesses.keys().copied().collect();
        assert_eq!(watched, HashSet::from([file(1), file(2)]));
        watcher.apply(&Change::Keep(HashSet::from([file(2)])));
        assert_eq!(watcher.without_witness(), HashSet::from([file(2)]));
    }
}
