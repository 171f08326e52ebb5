//! All that reconciling works on: what is wanted, what is steered, and what it takes to get from one to the other.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

use super::{apply::SetAside, discover::Discovery, follow::News, refused::Refused};
use crate::{
    config::{RuleName, Target},
    dial::{Names, OwnSockets, Remotes},
    intent::{Edit, Store},
    lease::Registry,
    locate::Opener,
    steer::{Draining, Maker, Table, Turns},
};

/// One of each for the whole daemon.
#[derive(Debug)]
pub(crate) struct World {
    /// What is wanted. Written by whoever has the turn of what it is wanted for, but for the words that say why rules wait.
    intent: Mutex<Store>,
    /// What is steered. Written by whoever has the namespace's turn.
    pub(crate) steered: Table,
    pub(crate) turns: Arc<Turns>,
    /// What namespaces are made with.
    pub(crate) maker: Maker,
    /// Namespaces that are not steered any more and have connections left.
    pub(crate) draining: Draining,
    /// Listeners that programs hold.
    pub(crate) leases: Registry,
    /// Somebody has to look who holds listeners of leases that have ended.
    pub(crate) leases_ended: Notify,
    /// Where targets lead.
    pub(crate) opener: Opener,
    /// Where destinations are: in namespaces, by host names, and which sockets are the daemon's own.
    pub(crate) remotes: Arc<Remotes>,
    pub(crate) names: Arc<Names>,
    pub(crate) own_sockets: Arc<OwnSockets>,
    /// What those who follow containers have to look at.
    pub(crate) news: News,
    /// What is looked for by label.
    pub(crate) discovery: Discovery,
    /// What of the daemon's file could not be made.
    pub(crate) set_aside: SetAside,
    /// Nothing new comes into force any more.
    pub(crate) ending: AtomicBool,
}

/// How destinations are reached that are not in the steered namespace.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) remotes: Arc<Remotes>,
    pub(crate) names: Arc<Names>,
    pub(crate) own_sockets: Arc<OwnSockets>,
}

impl World {
    /// Where nothing is wanted, and nothing is steered.
    pub(crate) fn new(maker: Maker, Ways { remotes, names, own_sockets }: Ways, opener: Opener) -> Self {
        Self {
            intent: Mutex::default(),
            steered: Table::default(),
            turns: Arc::default(),
            maker,
            draining: Draining::default(),
            leases: Registry::default(),
            leases_ended: Notify::new(),
            opener,
            remotes,
            names,
            own_sockets,
            news: News::default(),
            discovery: Discovery::default(),
            set_aside: SetAside::default(),
            ending: AtomicBool::new(false),
        }
    }

    pub(crate) fn intent(&self) -> MutexGuard<'_, Store> {
        self.intent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is wanted, and tells those who follow containers.
    pub(crate) fn intend(&self, edit: Edit) {
        self.intent().edit(edit);
        // An engine that nobody is followed of any more need not be listened to, and one that somebody is has to be.
        self.news.tell();
    }

    /// Has somebody look again at containers whose rules have such names: what was in their way may be gone.
    pub(crate) fn look_at_namesakes(&self, gone: &[RuleName]) {
        let namesakes: Vec<Target> = self.intent().namesakes(gone).into_iter().collect();
        if !namesakes.is_empty() {
            self.news.look_at(namesakes);
        }
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// # Errors
    ///
    /// When the daemon is ending.
    pub(crate) fn goes_on(&self) -> Result<(), Refused> {
        if self.is_ending() { Err(Refused::Stopping) } else { Ok(()) }
    }
}

#[cfg(test)]
impl World {
    /// One that steers nothing, for tests without rights.
    pub(crate) fn empty() -> Self {
        use crate::{
            locate::Watch,
            netns::NetnsCookie,
            steer::{All, ConnectionLimits, Limits},
        };
        let (watch, ..) = Watch::new().unwrap();
        let watch = Arc::new(watch);
        let limits = Arc::new(Limits::new(ConnectionLimits { total: 1, files: u64::MAX, per_client: None }));
        let interval = std::time::Duration::ZERO;
        let remotes = Arc::new(Remotes::new(Arc::clone(&watch), limits.stock(), interval));
        let names = Names::new(interval, limits.look_ups());
        let (went_down, _) = tokio::sync::mpsc::unbounded_channel();
        let (kernel, selves, outgoing, all) =
            (Arc::default(), Arc::default(), Arc::default(), All::default());
        let own = NetnsCookie(0);
        let maker = Maker { limits, watch, kernel, selves, outgoing, own, went_down, all };
        let own_sockets = Arc::new(OwnSockets::at(&[]).unwrap());
        Self::new(maker, Ways { remotes, names, own_sockets }, Opener::default())
    }
}
