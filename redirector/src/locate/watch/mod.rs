//! Learning that namespaces die.

mod watcher;

use std::{
    collections::HashSet,
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use super::{
    mounts,
    witness::{Witnesses, find, sees_host},
};
use crate::netns::NetnsFile;
use watcher::Watcher;

/// Namespaces whose death somebody wants to know of.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::UnboundedSender<Change>,
    registered: AtomicU64,
}

/// Says which registration is meant. It is never used twice, as an inode number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Number(u64);

#[derive(Clone, Copy, Debug)]
enum Change {
    Add(Number, NetnsFile),
    Remove(Number, NetnsFile),
}

/// A namespace is watched for whoever has this, until it is dropped. It keeps nothing alive.
#[derive(Debug)]
pub struct Registration {
    number: Number,
    file: NetnsFile,
    changes: mpsc::WeakUnboundedSender<Change>,
}

/// Registrations whose namespaces have died, found in one look.
#[derive(Debug)]
pub struct Died(HashSet<Number>);

impl Died {
    /// Whether the namespace has died for which this registration was made. What was let go of before, or has the same
    /// inode now, has another registration, or none.
    #[must_use]
    pub fn has(&self, registration: &Registration) -> bool {
        self.0.contains(&registration.number)
    }
}

impl Watch {
    /// Begins with none. The future watches, until the handle is dropped; deaths come out of the receiver, that of each
    /// registration once.
    ///
    /// Where [`sees_host`] says no, no death is ever told.
    ///
    /// # Errors
    ///
    /// When the mount tables cannot be opened.
    pub fn new()
    -> io::Result<(Self, impl Future<Output = ()> + Send + 'static, mpsc::UnboundedReceiver<Died>)> {
        let tables = watcher::open_tables(&mounts::own_tables())?;
        let (watch, watcher, deaths) = Self::by(Proc);
        Ok((watch, watcher.run(tables), deaths))
    }

    fn by<L: Look>(look: L) -> (Self, Watcher<L>, mpsc::UnboundedReceiver<Died>) {
        let (changes, received) = mpsc::unbounded_channel();
        let (deaths, told) = mpsc::unbounded_channel();
        (Self { changes, registered: AtomicU64::new(0) }, Watcher::new(look, received, deaths), told)
    }

    /// Watches a namespace. One that has died already is told of, too.
    #[must_use = "it is watched until this is dropped"]
    pub fn add(&self, file: NetnsFile) -> Registration {
        let number = Number(self.registered.fetch_add(1, Ordering::Relaxed));
        // The watch ends only with this handle.
        let _told: Result<_, _> = self.changes.send(Change::Add(number, file));
        Registration { number, file, changes: self.changes.downgrade() }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(changes) = self.changes.upgrade() {
            let _told: Result<_, _> = changes.send(Change::Remove(self.number, self.file));
        }
    }
}

/// How witnesses are looked for: in `/proc`, but for tests.
trait Look: Clone + Send + Sync + 'static {
    /// As [`find()`]. Blocks.
    fn find(&self, wanted: &HashSet<NetnsFile>) -> io::Result<Witnesses>;

    /// As [`sees_host()`].
    fn sees_host(&self) -> bool;
}

#[derive(Clone, Copy, Debug)]
struct Proc;

impl Look for Proc {
    fn find(&self, wanted: &HashSet<NetnsFile>) -> io::Result<Witnesses> {
        find(wanted)
    }

    fn sees_host(&self) -> bool {
        sees_host().is_ok()
    }
}

#[cfg(test)]
mod tests;
