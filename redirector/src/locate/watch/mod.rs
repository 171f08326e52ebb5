//! Learning that namespaces die.

mod look;
mod mount_changes;
mod registration;
mod watcher;

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::mpsc;

use self::{
    look::{Look, Proc},
    registration::{Number, WatchChange},
    watcher::Watcher,
};
pub use self::{
    mount_changes::MountChanges,
    registration::{Died, Registration},
};
use super::mounts;
use crate::netns::NetnsFile;

/// Namespaces whose death somebody wants to know of.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::UnboundedSender<WatchChange>,
    registered: AtomicU64,
}

impl Watch {
    /// Begins with none. The future watches, until the handle is dropped; deaths come out of the receiver, that of each
    /// registration once.
    ///
    /// Where [`super::sees_host`] says no, no death is ever told.
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
        let _told: Result<_, _> = self.changes.send(WatchChange::Add(number, file));
        Registration { number, file, changes: self.changes.downgrade() }
    }
}

#[cfg(test)]
mod tests;
