//! The task that watches.
//!
//! Each watched namespace has a witness. As long as that holds, nothing is scanned. Events make us look: a change
//! of the mount tables, the end of a witness's process; and a look at every witness each [`TICK`], because a
//! thread can change its namespace without a sound. A mount table that tells of its changes is read after one, and otherwise seldom;
//! a namespace that comes is looked for there first. All that have lost their witness share one scan, however many they are.
//! What two scans in a row do not find is dead; the second of them is the first of those that were lost meanwhile.

use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map},
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    look::Look,
    registration::{Died, Number, WatchChange},
};
use crate::{
    locate::witness::{Tables, Witness, Witnesses},
    netns::{NetnsFile, ProcessLink},
    observe::RateLimit,
    sys::{self, blocking::blocking},
};

/// Between two looks at all witnesses.
const TICK: Duration = Duration::from_secs(2);

/// Between two times that a mount table is read that has not told of a change, in [`TICK`]s.
const SELDOM: u32 = 30;

/// Between the scan that makes a suspect and the one that confirms it: a container engine that moves a namespace
/// from a process to a mount does the second before it ends the first.
const CONFIRM: Duration = Duration::from_millis(100);

/// What is known of one namespace.
#[derive(Debug, Default)]
struct Watched {
    /// Who wants to know, and by which links they have named it. With the last one it is forgotten.
    by: BTreeMap<Number, Vec<Arc<[ProcessLink]>>>,
    state: State,
}

#[derive(Debug, Default)]
enum State {
    /// Nobody has looked yet, or the witness is gone.
    #[default]
    Unknown,
    /// A scan has found no witness.
    Suspect,
    /// Somebody keeps it. The task waits for the end of its process.
    Kept { witness: Witness, _end: Option<AbortOnDropHandle<()>> },
}

#[derive(Debug)]
pub(super) struct Watcher<L> {
    watched: HashMap<NetnsFile, Watched>,
    pub(super) tables: Tables,
    look: L,
    received: mpsc::UnboundedReceiver<WatchChange>,
    deaths: mpsc::UnboundedSender<Died>,
    /// Holds one wake-up: what happens meanwhile is seen by the same look.
    wake: mpsc::Sender<()>,
    woken: mpsc::Receiver<()>,
    said_hidden: RateLimit,
}

impl<L: Look> Watcher<L> {
    pub(super) fn new(
        look: L,
        received: mpsc::UnboundedReceiver<WatchChange>,
        deaths: mpsc::UnboundedSender<Died>,
    ) -> Self {
        let (wake, woken) = mpsc::channel(1);
        let (watched, said_hidden) = (HashMap::new(), RateLimit::default());
        Self { watched, tables: Tables::default(), look, received, deaths, wake, woken, said_hidden }
    }

    pub(super) async fn run(mut self, tables: Vec<(PathBuf, AsyncFd<OwnedFd>)>) {
        let (telling, tables): (_, Vec<_>) = tables.into_iter().unzip();
        self.tables = Tables::telling(telling);
        let _mounts: Vec<_> = tables
            .into_iter()
            .map(|table| AbortOnDropHandle::new(tokio::spawn(tell_changes(table, self.wake.clone()))))
            .collect();
        let mut ticks = 0;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = self.received.recv() => match change {
                    None => return,
                    Some(change) => {
                        self.apply(change);
                        // Whoever has a witness keeps it until something tells otherwise.
                        self.look_for_others().await;
                        continue;
                    }
                },
                _ = self.woken.recv() => self.tables.changed(),
                _ = tick.tick() => {
                    ticks += 1;
                    if ticks % SELDOM == 0 {
                        self.tables.changed();
                    }
                }
            }
            self.look().await;
        }
    }

    fn apply(&mut self, change: WatchChange) {
        match change {
            WatchChange::Add(number, file) => {
                let watched = self.watched.entry(file).or_default();
                watched.by.entry(number).or_default();
                // It may be another namespace with the inode of one before.
                if matches!(watched.state, State::Suspect) {
                    watched.state = State::Unknown;
                }
            }
            WatchChange::Named(number, file, links) => {
                let watched = self.watched.get_mut(&file);
                if let Some((watched, names)) =
                    watched.and_then(|watched| Some((&mut watched.state, watched.by.get_mut(&number)?)))
                {
                    // Those of processes that have ended lead nowhere any more.
                    names.retain(|links| links.iter().any(|link| link.leads_to() == Some(file)));
                    names.push(links);
                    if matches!(watched, State::Suspect) {
                        *watched = State::Unknown;
                    }
                }
            }
            WatchChange::Remove(number, file) => {
                if let hash_map::Entry::Occupied(mut watched) = self.watched.entry(file) {
                    watched.get_mut().by.remove(&number);
                    if watched.get().by.is_empty() {
                        watched.remove();
                    }
                }
            }
        }
    }

    /// Drops witnesses that do not hold any more, looks for others, and tells who has none.
    pub(super) async fn look(&mut self) {
        self.look_at_witnesses();
        self.look_for_others().await;
    }

    /// Looks for witnesses of those that have none, and tells who has none.
    async fn look_for_others(&mut self) {
        loop {
            // Many changes are one look. None is applied during a scan: what it finds is about those that it was made for.
            while let Ok(change) = self.received.try_recv() {
                self.apply(change);
            }
            self.find_in_tables();
            let wanted = self.without_witness();
            // Where absence means nothing, a scan every [`TICK`] would tell nothing.
            if wanted.is_empty() || !self.look.sees_host() {
                return;
            }
            let absent = self.scan(wanted).await;
            self.judge(&absent);
            if !self.has_suspects() {
                return;
            }
            tokio::time::sleep(CONFIRM).await;
            if self.woken.try_recv().is_ok() {
                self.tables.changed();
            }
            self.look_at_witnesses();
        }
    }

    fn look_at_witnesses(&mut self) {
        self.tables.begin_look();
        for (file, watched) in &mut self.watched {
            if let State::Kept { witness, .. } = &watched.state
                && !witness.holds(*file, &mut self.tables)
            {
                watched.state = State::Unknown;
            }
        }
    }

    /// Finds those that nobody has looked for yet where they are as a rule. That one is not there means nothing.
    fn find_in_tables(&mut self) {
        for (file, watched) in &mut self.watched {
            if let State::Unknown = watched.state
                && let Some(witness) = self.tables.witness(*file)
            {
                watched.state = State::Kept { witness, _end: None };
            }
        }
    }

    fn without_witness(&self) -> HashSet<NetnsFile> {
        let without = self.watched.iter().filter(|(_, watched)| !matches!(watched.state, State::Kept { .. }));
        without.map(|(file, _)| *file).collect()
    }

    fn has_suspects(&self) -> bool {
        self.watched.values().any(|watched| matches!(watched.state, State::Suspect))
    }

    /// Suspects that are absent again are dead; what is absent for the first time is a suspect from now on.
    fn judge(&mut self, absent: &HashSet<NetnsFile>) {
        let mut died = HashSet::new();
        self.watched.retain(|file, watched| {
            match (&watched.state, absent.contains(file)) {
                (State::Suspect, true) => {
                    died.extend(std::mem::take(&mut watched.by).into_keys());
                    return false;
                }
                (State::Unknown, true) => watched.state = State::Suspect,
                (State::Suspect, false) => watched.state = State::Unknown,
                (State::Unknown, false) | (State::Kept { .. }, _) => {}
            }
            true
        });
        if !died.is_empty() {
            let _told: Result<_, _> = self.deaths.send(Died(died));
        }
    }

    /// Finds those that are held open by what they were named by.
    fn find_named(&mut self, wanted: &HashSet<NetnsFile>, found: &mut Witnesses) {
        for file in wanted {
            if !found.of.contains_key(file)
                && let Some(watched) = self.watched.get(file)
            {
                let mut named = watched.by.values().flatten().cloned().map(Witness::Named);
                found.of.extend(named.find(|one| one.holds(*file, &mut self.tables)).map(|one| (*file, one)));
            }
        }
    }

    /// Looks for witnesses of these namespaces; gives those that have none.
    async fn scan(&mut self, wanted: HashSet<NetnsFile>) -> HashSet<NetnsFile> {
        let look = self.look.clone();
        let scanned = blocking(move || {
            let found = look.find(&wanted);
            (wanted, found)
        });
        let (mut wanted, mut found) = match scanned.await.and_then(|(wanted, found)| Ok((wanted, found?))) {
            Ok(scanned) => scanned,
            Err(error) => {
                tracing::warn!(%error, "scan for processes and mounts");
                return HashSet::new();
            }
        };
        self.find_named(&wanted, &mut found);
        if found.hidden > 0 && !wanted.iter().all(|file| found.of.contains_key(file)) {
            // One of them may be what keeps it.
            if let Some(suppressed) = self.said_hidden.pass() {
                let processes = found.hidden;
                tracing::warn!(processes, suppressed, "cannot see in which namespace these processes are");
            }
            wanted.clear();
        }
        for (file, witness) in found.of {
            wanted.remove(&file);
            let end = self.end_of(&witness);
            if let Some(watched) = self.watched.get_mut(&file) {
                watched.state = State::Kept { witness, _end: end };
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

/// Mount tables, as files that tell when they have changed.
pub(super) fn open_tables(paths: &[PathBuf]) -> io::Result<Vec<(PathBuf, AsyncFd<OwnedFd>)>> {
    let mut tables = Vec::new();
    for path in paths {
        match File::open(path) {
            Ok(file) => {
                tables.push((path.clone(), sys::async_fd(file, Interest::PRIORITY | Interest::ERROR)?));
            }
            Err(error) => tracing::warn!(path = %path.display(), %error, "cannot watch this mount table"),
        }
    }
    Ok(tables)
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
