//! Destinations in other namespaces: which namespace a target is now, sockets made there, and its death.
//!
//! Nothing of ours is there between connections but sockets in stock, for a second at most. The connections that
//! are there would keep it alive, so it is watched as a steered one is, and they are reset when it dies.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Target,
    netns::{Location, NetnsCookie, NetnsFile, SocketFactory, enter},
    target::{Caller, OpenNetns, Opener, Watch},
};

/// A namespace that destinations lie in, as it was found.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) location: Location,
    pub(super) factory: SocketFactory,
    gone: CancellationToken,
}

impl Remote {
    /// Goes into an open namespace to learn which one it is. Blocks.
    pub(super) fn location(opened: OpenNetns) -> io::Result<Location> {
        let OpenNetns { fd, file, path, .. } = opened;
        let cookie = enter(&fd, NetnsCookie::here)?.map_err(io::Error::other)?;
        Ok(Location { path, file, cookie })
    }

    /// Ready when it has died.
    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

/// Every remote that a rule or a connection has.
#[derive(Debug)]
pub(super) struct Remotes {
    watch: Arc<Watch>,
    list: Mutex<Vec<Weak<Remote>>>,
    /// Unused sockets that one may have in stock.
    stock: usize,
}

impl Remotes {
    pub(super) fn new(watch: Arc<Watch>, stock: usize) -> Self {
        Self { watch, list: Mutex::default(), stock }
    }

    /// Registers one before it is watched: what is watched and not in the list is forgotten.
    fn add(&self, location: Location) -> Arc<Remote> {
        let file = location.file;
        let factory = SocketFactory::new(self.stock);
        let remote = Arc::new(Remote { location, factory, gone: CancellationToken::new() });
        let mut list = self.list();
        list.retain(|one| one.strong_count() > 0);
        list.push(Arc::downgrade(&remote));
        drop(list);
        self.watch.add(file);
        remote
    }

    /// The namespace with this file has died. Whether it was one of these.
    pub(super) fn bury(&self, file: NetnsFile) -> bool {
        let dead: Vec<_> = self.living().into_iter().filter(|one| one.location.file == file).collect();
        for remote in &dead {
            remote.gone.cancel();
            remote.factory.clear();
        }
        !dead.is_empty()
    }

    /// Those that are in use and have not died.
    pub(super) fn files(&self) -> Vec<NetnsFile> {
        self.living().iter().map(|one| one.location.file).collect()
    }

    fn living(&self) -> Vec<Arc<Remote>> {
        let remotes = self.list().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        remotes.into_iter().filter(|one| !one.gone.is_cancelled()).collect()
    }

    fn list(&self) -> std::sync::MutexGuard<'_, Vec<Weak<Remote>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a rule's destination names.
#[derive(Debug)]
pub(super) struct Elsewhere {
    target: Target,
    opener: Opener,
    remotes: Arc<Remotes>,
    current: ArcSwapOption<Remote>,
    /// One look at a time.
    looking: tokio::sync::Mutex<()>,
}

impl Elsewhere {
    /// Of a namespace that has been found, or that is not there now.
    pub(super) fn new(
        target: Target,
        opener: Opener,
        remotes: &Arc<Remotes>,
        location: Option<Location>,
    ) -> Self {
        let current = ArcSwapOption::new(location.map(|location| remotes.add(location)));
        Self { target, opener, remotes: Arc::clone(remotes), current, looking: tokio::sync::Mutex::default() }
    }

    /// Which namespace it is now. Looks for it only when the one before is gone.
    pub(super) async fn remote(&self) -> io::Result<Arc<Remote>> {
        if let Some(remote) = self.known() {
            return Ok(remote);
        }
        let _looking = self.looking.lock().await;
        if let Some(remote) = self.known() {
            return Ok(remote);
        }
        if let Target::Pid(pid) = self.target {
            // The number may be another process's by now.
            let why = format!("the namespace of process {pid} is gone");
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        // Only `pid:` and `self` ask for a caller.
        let opened = self.opener.open(self.target.clone(), Caller { pid: None, uid: 0 }).await;
        let not_found = |error| io::Error::new(io::ErrorKind::NotFound, crate::control::chain(&error));
        let opened = opened.map_err(not_found)?;
        let found = tokio::task::spawn_blocking(move || Remote::location(opened));
        let remote = self.remotes.add(found.await.map_err(io::Error::other)??);
        self.current.store(Some(Arc::clone(&remote)));
        tracing::info!(target = %self.target, cookie = %remote.location.cookie, "found the namespace of a destination again");
        Ok(remote)
    }

    /// Another look at the same target may have found another namespace: new connections go there.
    pub(super) fn adopt(&self, other: &Self) {
        let cookie = |remote: &Arc<Remote>| remote.location.cookie;
        if let Some(found) = other.known()
            && self.known().as_ref().map(cookie) != Some(cookie(&found))
        {
            tracing::info!(target = %self.target, cookie = %found.location.cookie, "a destination is in another namespace now");
            self.current.store(Some(found));
        }
    }

    /// A remote has turned out not to be what the target names any more. What it has goes on.
    pub(super) fn lost(&self, remote: &Arc<Remote>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, remote)) {
            self.current.compare_and_swap(&current, None);
        }
    }

    /// Whether it is this namespace, as far as it is known.
    pub(super) fn is_in(&self, cookie: NetnsCookie) -> bool {
        self.known().is_some_and(|remote| remote.location.cookie == cookie)
    }

    /// Whether it was known and has died.
    pub(super) fn is_gone(&self) -> bool {
        self.known().is_none()
    }

    fn known(&self) -> Option<Arc<Remote>> {
        self.current.load_full().filter(|remote| !remote.gone.is_cancelled())
    }
}
