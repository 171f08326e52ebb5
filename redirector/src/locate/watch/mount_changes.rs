//! Learning that something was mounted, or is not any more.

use std::{future, io, os::fd::OwnedFd};

use futures_util::future::select_all;
use tokio::io::{Interest, unix::AsyncFd};

use super::watcher::open_tables;
use crate::locate::mounts;

/// Tells of changes of PID 1's mounts, and of the daemon's own.
#[derive(Debug)]
pub struct MountChanges {
    tables: Vec<AsyncFd<OwnedFd>>,
}

impl MountChanges {
    /// Tells of those from now on.
    ///
    /// # Errors
    ///
    /// When a mount table can be opened, and not be waited for.
    pub fn new() -> io::Result<Self> {
        let tables = open_tables(&mounts::own_tables())?;
        Ok(Self { tables: tables.into_iter().map(|(_, table)| table).collect() })
    }

    /// Ready when there was one. Several may be told as one.
    pub async fn changed(&self) {
        let changes = self.tables.iter().map(|table| {
            Box::pin(async move {
                match table.ready(Interest::PRIORITY | Interest::ERROR).await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => future::pending().await,
                }
            })
        });
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            future::pending::<()>().await;
        }
        select_all(changes).await;
    }
}
