//! Who wants to know of the death of a namespace.

use std::{collections::HashSet, sync::Arc};

use tokio::sync::mpsc;

use crate::netns::{NetnsFile, ProcessLink};

/// Says which registration is meant. It is never used twice, as an inode number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Number(pub(super) u64);

#[derive(Debug)]
pub(super) enum WatchChange {
    Add(Number, NetnsFile),
    Named(Number, NetnsFile, Arc<[ProcessLink]>),
    Remove(Number, NetnsFile),
}

/// A namespace is watched for whoever has this, until it is dropped. It keeps nothing alive.
#[derive(Debug)]
pub struct Registration {
    pub(super) number: Number,
    pub(super) file: NetnsFile,
    pub(super) changes: mpsc::WeakUnboundedSender<WatchChange>,
}

impl Registration {
    /// Says by which links of processes the namespace was named: while one of them leads there it lives, although no process is
    /// in it and nothing has it mounted. It keeps no process.
    pub fn named_by(&self, links: &Arc<[ProcessLink]>) {
        let changes = self.changes.upgrade().filter(|_| !links.is_empty());
        if let Some(changes) = changes {
            let _told: Result<_, _> =
                changes.send(WatchChange::Named(self.number, self.file, Arc::clone(links)));
        }
    }
}

/// Registrations whose namespaces have died, found in one look.
#[derive(Debug)]
pub struct Died(pub(super) HashSet<Number>);

impl Died {
    /// Whether the namespace has died for which this registration was made. What was let go of before, or has the same
    /// inode now, has another registration, or none.
    #[must_use]
    pub fn has(&self, registration: &Registration) -> bool {
        self.0.contains(&registration.number)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(changes) = self.changes.upgrade() {
            let _told: Result<_, _> = changes.send(WatchChange::Remove(self.number, self.file));
        }
    }
}
