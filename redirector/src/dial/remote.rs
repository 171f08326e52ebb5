//! Destinations in other namespaces: which namespace a target is now, sockets made there, and its death.
//!
//! Nothing of ours is there between connections but sockets in stock, for a second at most. The connections that
//! are there would keep it alive, so it is watched as a steered one is, and they are reset when it dies.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::connect::{DialFailure, is_out_of_sockets};
use crate::{
    config::Target,
    locate::{Caller, Died, OpenNetns, Opener, Registration, TargetError, Watch},
    netns::{Location, NetnsCookie, NetnsFile, ProcessLink, SocketFactory, enter},
    observe::NotDelivered,
    sys::blocking::blocking,
};

/// A namespace that destinations lie in, as it was found.
#[derive(Debug)]
pub(crate) struct Remote {
    pub(crate) location: Location,
    pub(crate) factory: SocketFactory,
    gone: CancellationToken,
    watched: Registration,
}

impl Remote {
    /// Goes into an open namespace to learn which one it is. Blocks.
    pub(crate) fn location(opened: OpenNetns) -> io::Result<Location> {
        let OpenNetns { fd, file, path, processes, .. } = opened;
        let cookie = enter(&fd, NetnsCookie::here)?.map_err(io::Error::other)?;
        Ok(Location { path, file, cookie, processes })
    }

    /// Ready when it has died.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

/// Every remote that a rule or a connection has.
#[derive(Debug)]
pub(crate) struct Remotes {
    watch: Arc<Watch>,
    list: Mutex<Vec<Weak<Remote>>>,
    /// What rules' destinations name.
    places: Mutex<HashMap<Target, Weak<Elsewhere>>>,
    /// Unused sockets that one may have in stock.
    stock: usize,
    /// After so long a namespace to which connections go is looked for again: a name may mean another one by now. Never
    /// where it is zero.
    interval: Duration,
}

impl Remotes {
    pub(crate) fn new(watch: Arc<Watch>, stock: usize, interval: Duration) -> Self {
        Self { watch, list: Mutex::default(), places: Mutex::default(), stock, interval }
    }

    fn add(&self, location: Location) -> Arc<Remote> {
        let factory = SocketFactory::new(self.stock);
        // Until it is in the list, nobody is told of its death.
        let mut list = self.list();
        let watched = self.watch.add(location.file);
        watched.named_by(&location.processes);
        let remote = Arc::new(Remote { location, factory, gone: CancellationToken::new(), watched });
        list.retain(|one| one.strong_count() > 0);
        list.push(Arc::downgrade(&remote));
        remote
    }

    /// Namespaces have died. Gives those of these that are among them, as they were.
    pub(crate) fn bury(&self, died: &Died) -> Vec<NetnsFile> {
        let dead = self.living().into_iter().filter(|remote| died.has(&remote.watched));
        dead.map(|remote| {
            remote.gone.cancel();
            remote.factory.clear();
            remote.location.file
        })
        .collect()
    }

    /// An engine is asked seldom: that is work for it, and it is asked at once where a dial fails or the namespace dies, which
    /// is what becomes of a container that moves. What is left is another container with the name of one that lives.
    fn interval_of(&self, target: &Target) -> Duration {
        match target {
            Target::Container(_) => self.interval * OF_CONTAINERS,
            _ => self.interval,
        }
    }

    fn living(&self) -> Vec<Arc<Remote>> {
        let remotes = self.list().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
        remotes.into_iter().filter(|one| !one.gone.is_cancelled()).collect()
    }

    fn list(&self) -> MutexGuard<'_, Vec<Weak<Remote>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The namespace that destinations name by one target. All rules with that target share one, but where the target
/// leads through a process: its number means another process later.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    target: Target,
    opener: Opener,
    remotes: Arc<Remotes>,
    current: ArcSwapOption<Remote>,
    /// Whether `current` was found through a process: then it is never looked for again.
    is_of_process: AtomicBool,
    looks: Mutex<Looks>,
    /// Counts the looks that have ended.
    looked: watch::Sender<u64>,
}

/// So many times less often than what has another name a container is looked for whose destination answers.
const OF_CONTAINERS: u32 = 6;

/// Looks for a target's namespace: one at a time, and not at once after one.
#[derive(Debug, Default)]
struct Looks {
    is_running: bool,
    ended: Option<Instant>,
    /// Since one has found it.
    failures: u32,
    /// Of the last failure.
    why: Option<NoLook>,
}

/// Why a look has found nothing.
#[derive(Clone, Debug)]
struct NoLook {
    /// That the namespace is gone, or that this host had nothing left to look with.
    reason: NotDelivered,
    text: String,
}

impl NoLook {
    /// `error` has the kind, `text` the whole story.
    fn new(error: Option<&io::Error>, text: String) -> Self {
        let reason = match error {
            Some(error) if is_out_of_sockets(error) => NotDelivered::OutOfSockets,
            _ => NotDelivered::NamespaceGone,
        };
        Self { reason, text }
    }
}

impl From<TargetError> for NoLook {
    fn from(error: TargetError) -> Self {
        let text = crate::text::chain(&error);
        match &error {
            TargetError::Syscall { source, .. } => Self::new(Some(source), text),
            _ => Self::new(None, text),
        }
    }
}

impl From<io::Error> for NoLook {
    fn from(error: io::Error) -> Self {
        Self::new(Some(&error), error.to_string())
    }
}

impl From<NoLook> for DialFailure {
    fn from(NoLook { reason, text }: NoLook) -> Self {
        Self::Because(reason, io::Error::new(io::ErrorKind::NotFound, text))
    }
}

/// The least time between two looks.
const SPACING: Duration = Duration::from_millis(900);

/// How often a failure doubles the time until the next look at a container.
const DOUBLED: u32 = 2;

impl Remotes {
    /// What a target names, with the namespace that it has just been found to be, or with none where it is not there now.
    pub(crate) fn elsewhere(
        self: &Arc<Self>,
        target: &Target,
        opener: &Opener,
        location: Option<Location>,
    ) -> Arc<Elsewhere> {
        let processes = location.as_ref().map_or(&[][..], |location| &location.processes);
        let is_of_process = leads_through_process(target, processes);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|_, place| place.strong_count() > 0);
        if let Some(place) = places.get(target).and_then(Weak::upgrade).filter(|_| !is_of_process) {
            drop(places);
            if let Some(location) = location {
                place.take(location);
            }
            return place;
        }
        let place = Arc::new(Elsewhere {
            target: target.clone(),
            opener: opener.clone(),
            remotes: Arc::clone(self),
            is_of_process: AtomicBool::new(is_of_process),
            looks: Mutex::new(Looks { ended: location.as_ref().map(|_| Instant::now()), ..Looks::default() }),
            current: ArcSwapOption::new(location.map(|location| self.add(location))),
            looked: watch::Sender::new(0),
        });
        if !is_of_process {
            places.insert(target.clone(), Arc::downgrade(&place));
        }
        place
    }
}

/// Whether a target is a process, or has led through one. A container's may: its engine says which process that is, each
/// time.
pub(crate) fn leads_through_process(target: &Target, processes: &[ProcessLink]) -> bool {
    !matches!(target, Target::Container(_)) && (matches!(target, Target::Pid(_)) || !processes.is_empty())
}

impl Elsewhere {
    /// Which namespace it is now. Waits for a look only when none is known; where it has been known for a while, a look
    /// begins for those who come later.
    pub(super) async fn remote(self: &Arc<Self>) -> Result<Arc<Remote>, DialFailure> {
        let mut looked = self.looked.subscribe();
        if let Some(remote) = self.known() {
            let interval = self.remotes.interval_of(&self.target);
            let is_due = || self.looks().ended.is_none_or(|ended| ended.elapsed() >= interval);
            if !interval.is_zero() && is_due() {
                self.begin();
            }
            return Ok(remote);
        }
        if self.begin() {
            // The sender is in `self`.
            drop(looked.changed().await);
        }
        self.known().ok_or_else(|| self.why().into())
    }

    /// Looks again because a dial into a namespace has failed. Gives another one where the target names another one now.
    /// All whose dials fail share one look. Nobody waits where the look before has failed.
    pub(crate) async fn again(self: &Arc<Self>, failed: &Arc<Remote>) -> Option<Arc<Remote>> {
        let mut looked = self.looked.subscribe();
        let other = || self.known().filter(|remote| !Arc::ptr_eq(remote, failed));
        if let Some(remote) = other() {
            return Some(remote);
        }
        if !self.begin() || self.looks().failures > 0 {
            return None;
        }
        looked.changed().await.ok()?;
        other()
    }

    /// Has a look begin, in a task of its own: it goes on when whoever waits gives up. Whether one runs.
    fn begin(self: &Arc<Self>) -> bool {
        if self.is_found_by_process() {
            return false;
        }
        let mut looks = self.looks();
        if looks.is_running {
            return true;
        }
        let doubled = match self.target {
            // An engine is asked.
            Target::Container(_) => looks.failures.saturating_sub(1).min(DOUBLED),
            _ => 0,
        };
        if looks.ended.is_some_and(|ended| ended.elapsed() < SPACING * (1 << doubled)) {
            return false;
        }
        looks.is_running = true;
        drop(looks);
        let place = Arc::clone(self);
        tokio::spawn(async move {
            let found = place.look().await;
            place.end(found);
        });
        true
    }

    async fn look(&self) -> Result<Location, NoLook> {
        let opened = self.opener.open(self.target.clone(), Caller::NOBODY).await?;
        let location = blocking(move || Remote::location(opened)).await??;
        if leads_through_process(&self.target, &location.processes) {
            let why = format!(
                "`{}` leads through a process, whose number may be another process's by now",
                self.target
            );
            return Err(NoLook::new(None, why));
        }
        Ok(location)
    }

    fn end(&self, found: Result<Location, NoLook>) {
        let mut looks = self.looks();
        looks.is_running = false;
        looks.ended = Some(Instant::now());
        match found {
            Ok(location) => {
                looks.failures = 0;
                self.take(location);
            }
            Err(error) => {
                looks.failures = looks.failures.saturating_add(1);
                if looks.failures == 1 && self.known().is_some() {
                    tracing::warn!(target = %self.target, error = %error.text, "a destination's namespace is not found again; connections go to the last one");
                }
                looks.why = Some(error);
            }
        }
        drop(looks);
        self.looked.send_modify(|looked| *looked += 1);
    }

    /// A look has found this namespace: new connections go there.
    fn take(&self, location: Location) {
        let known = self.known();
        if known.as_ref().is_some_and(|known| known.location.is_as(&location)) {
            return;
        }
        let cookie = location.cookie;
        let is_of_process = leads_through_process(&self.target, &location.processes);
        self.is_of_process.store(is_of_process, Ordering::Relaxed);
        self.current.store(Some(self.remotes.add(location)));
        if known.is_some() {
            tracing::info!(target = %self.target, %cookie, "a destination is in another namespace now");
        } else {
            tracing::info!(target = %self.target, %cookie, "found the namespace of a destination again");
        }
    }

    /// Another look at the same target may have found another namespace: new connections go there. Not where that is a
    /// process, which only who asked for that look means.
    pub(crate) fn adopt(&self, other: &Self) {
        if let Some(found) = other.known()
            && (self.is_found_by_process() || !other.is_found_by_process())
        {
            self.take(found.location.clone());
        }
    }

    /// A remote has turned out not to be what the target names any more. What it has goes on.
    pub(crate) fn lost(&self, remote: &Arc<Remote>) {
        let current = self.current.load();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, remote)) {
            self.current.compare_and_swap(&current, None);
            let mut looks = self.looks();
            if looks.failures == 0 {
                looks.ended = None;
            }
        }
    }

    /// Whether it is this namespace, as far as it is known.
    pub(crate) fn is_in(&self, cookie: NetnsCookie) -> bool {
        self.known().is_some_and(|remote| remote.location.cookie == cookie)
    }

    /// Whether it was known and has died.
    pub(crate) fn is_gone(&self) -> bool {
        self.known().is_none()
    }

    /// Whether it was found through a process, whose number means another one later.
    pub(crate) fn is_found_by_process(&self) -> bool {
        self.is_of_process.load(Ordering::Relaxed)
    }

    fn known(&self) -> Option<Arc<Remote>> {
        self.current.load_full().filter(|remote| !remote.gone.is_cancelled())
    }

    /// Why it is not known.
    fn why(&self) -> NoLook {
        if self.is_found_by_process() {
            let what = &self.target;
            let text =
                format!("the namespace of `{what}` is gone, and a process's number is not looked up again");
            return NoLook::new(None, text);
        }
        self.looks().why.clone().unwrap_or_else(|| NoLook::new(None, "it is gone".into()))
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_is_asked_less_often_than_the_kernel() {
        let watch = Arc::new(Watch::new().unwrap().0);
        let of = |seconds, target: &str| {
            let remotes = Remotes::new(Arc::clone(&watch), 1, Duration::from_secs(seconds));
            remotes.interval_of(&target.parse().unwrap()).as_secs()
        };
        assert_eq!([of(5, "netns:web"), of(5, "docker:web"), of(5, "podman:web")], [5, 30, 30]);
        assert_eq!(of(0, "docker:web"), 0, "never");
    }

    #[test]
    fn a_look_that_this_host_had_no_files_for_does_not_say_that_the_namespace_is_gone() {
        let target: Target = "netns:there".parse().unwrap();
        let of = |errno| io::Error::from_raw_os_error(errno);
        let call = |errno| TargetError::Syscall {
            target: target.clone(),
            call: "open `/run/netns/there`".into(),
            source: of(errno),
        };
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN] {
            for error in [NoLook::from(call(errno)), NoLook::from(of(errno))] {
                assert!(error.text.contains(&of(errno).to_string()), "{error:?}");
                let (reason, _) = DialFailure::from(error).classified();
                assert_eq!(reason, NotDelivered::OutOfSockets, "{errno}");
            }
        }
        let absent = TargetError::NotFound { target: target.clone(), what: "no file".into() };
        for error in [absent.into(), NoLook::from(call(libc::EACCES)), NoLook::from(of(libc::ENOENT))] {
            assert_eq!(error.reason, NotDelivered::NamespaceGone, "{error:?}");
        }
    }
}
