//! The only place that knows all of the modules above it: probe, plan, bind, publish, reconcile, drain.
//!
//! Changes take turns behind one lock (`Supervisor::table`); the data path never takes it. A connection knows
//! its `namespace::Namespace` and reads the rules in force from there without a lock.

mod all;
mod apply;
mod attach;
mod black_hole;
mod connection;
mod core;
mod detach;
mod discover;
mod draining;
mod explain;
mod export;
mod follow;
mod health;
mod interfaces;
mod lease;
mod limits;
mod lingering;
mod list;
mod namespace;
mod opening;
mod places;
mod roster;
mod rules;
mod sockets;
mod steering;

use std::{
    collections::{HashMap, HashSet},
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use self::core::Core;
pub use limits::{ConnectionLimits, affordable_connections, raise_limits};

use tokio::sync::{Mutex, Notify, mpsc, watch};

use self::{
    all::All,
    apply::SetAside,
    discover::Discovery,
    draining::Draining,
    follow::Follows,
    lease::Registry,
    limits::Limits,
    namespace::{Life, Namespace, WentDown},
};
use crate::{
    config::{Engine, Target},
    control::{
        Api, Applied, ApplyRequest, AttachRequest, Attached, Caller, Code, DetachRequest, Detached, Error,
        ExplainRequest, Explanation, Exported, Listing, Shadows,
    },
    dial::{Names, Outgoing, OwnSockets, Remotes, Selves},
    kernel::Shared,
    locate::{Opener, Watch},
    netns::{NetnsCookie, NetnsFile},
    sys,
    text::chain,
};

type Table = HashMap<NetnsCookie, Arc<Namespace>>;

/// The daemon's state and what can be done to it.
#[derive(Debug)]
pub struct Supervisor {
    /// What is steered. Held over each change.
    table: Mutex<Table>,
    all: All,
    draining: Draining,
    limits: Arc<Limits>,
    watch: Arc<Watch>,
    /// As it was last found out whose death matters.
    watched: std::sync::Mutex<HashSet<NetnsFile>>,
    went_down: mpsc::UnboundedSender<WentDown>,
    kernel: Arc<Shared>,
    selves: Arc<Selves>,
    remotes: Arc<Remotes>,
    names: Arc<Names>,
    own_sockets: Arc<OwnSockets>,
    outgoing: Arc<Outgoing>,
    opener: Opener,
    follows: Follows,
    discovery: Discovery,
    set_aside: SetAside,
    own_cookie: NetnsCookie,
    ending: AtomicBool,
    /// A lease has ended: somebody has to look who holds its listeners.
    leases_ended: Notify,
    leases: Registry,
    /// Held by whoever looks for rules that never decide, which takes long.
    shadowing: Mutex<()>,
}

/// What the supervisor depends on, beside the kernel.
#[derive(Debug)]
pub struct Surroundings {
    /// Finds containers.
    pub opener: Opener,
    /// Sockets of this daemon.
    pub own_sockets: OwnSockets,
    /// How often destinations are looked up that can move. Zero: only when a dial has failed.
    pub resolve_interval: Duration,
}

/// [`Surroundings::resolve_interval`] where nobody has said another one.
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(5);

/// Events that the supervisor acts on.
#[derive(Debug)]
struct Events {
    deaths: mpsc::UnboundedReceiver<NetnsFile>,
    went_down: mpsc::UnboundedReceiver<WentDown>,
}

impl Supervisor {
    /// Begins with nothing steered. What it does by itself ends with the core.
    ///
    /// # Errors
    ///
    /// When the daemon's own namespace or the mount table cannot be read.
    pub fn start(limits: ConnectionLimits, surroundings: Surroundings) -> io::Result<(Arc<Self>, Core)> {
        let Surroundings { opener, own_sockets, resolve_interval } = surroundings;
        let own_cookie = NetnsCookie::here().map_err(io::Error::other)?;
        let (watch, watching, deaths) = Watch::new()?;
        let (went_down, went_down_events) = mpsc::unbounded_channel();
        let limits = Arc::new(Limits::new(limits));
        let watch = Arc::new(watch);
        let supervisor = Arc::new(Self {
            table: Mutex::default(),
            all: All::default(),
            draining: Draining::default(),
            remotes: Arc::new(Remotes::new(Arc::clone(&watch), limits.stock(), resolve_interval)),
            names: Names::new(resolve_interval, limits.look_ups()),
            own_sockets: Arc::new(own_sockets),
            limits,
            watch,
            watched: std::sync::Mutex::default(),
            went_down,
            kernel: Arc::default(),
            selves: Arc::default(),
            outgoing: Arc::default(),
            opener,
            follows: Follows::default(),
            discovery: Discovery::default(),
            set_aside: SetAside::default(),
            own_cookie,
            ending: AtomicBool::new(false),
            leases_ended: Notify::new(),
            leases: Registry::default(),
            shadowing: Mutex::default(),
        });
        let mut core = Core::default();
        core.start("notices that namespaces die", watching);
        let events = Events { deaths, went_down: went_down_events };
        core.start("tends what is steered", Arc::clone(&supervisor).tend(events));
        core.start("ends leases", Arc::clone(&supervisor).sweep_leases());
        core.start("tries again what was set aside", Arc::clone(&supervisor).retry_set_aside());
        for engine in Engine::ALL {
            core.start("follows containers", Arc::clone(&supervisor).follow(engine));
            core.start("looks for containers by their labels", Arc::clone(&supervisor).discover(engine));
        }
        Ok((supervisor, core))
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// How many namespaces of the file that was applied last are set aside, and each change of that.
    #[must_use]
    pub fn set_aside(&self) -> watch::Receiver<usize> {
        self.set_aside.count()
    }

    /// Stops steering everything at once, waits for the relayed connections, and resets those that are left
    /// when `deadline` is ready, also where a change has not ended by then.
    pub async fn drain(&self, deadline: impl Future<Output = ()>) {
        self.ending.store(true, Ordering::Relaxed);
        let mut deadline = pin!(deadline);
        let changed = tokio::select! {
            biased;
            table = self.table.lock() => Some(table),
            () = &mut deadline => None,
        };
        let Some(mut table) = changed else {
            tracing::warn!("a change has not ended at the drain deadline");
            return reset(self.all.living()).await;
        };
        for (_, netns) in table.drain() {
            netns.stop_steering(Life::Detached);
            self.draining.push(&netns);
        }
        drop(table);
        let left = self.draining.all();
        let ended = async {
            for netns in &left {
                netns.stopped().await;
            }
            let waiting: usize = left.iter().map(|netns| netns.tasks.len()).sum();
            if waiting > 0 {
                tracing::info!(connections = waiting, "waiting for relayed connections to end");
            }
            for netns in &left {
                netns.tasks.wait().await;
            }
        };
        tokio::select! {
            biased;
            () = ended => {}
            () = deadline => reset(left.clone()).await,
        }
    }
}

/// Lets go of all of them at once.
async fn reset(left: Vec<Arc<Namespace>>) {
    let counts: Vec<_> = left.iter().map(|netns| netns.tasks.len()).collect();
    left.iter().for_each(|netns| netns.stop_steering(Life::Aborted));
    for (netns, connections) in left.iter().zip(counts) {
        netns.abort().await;
        if connections > 0 {
            tracing::warn!(netns = %netns.target, connections, "reset at the drain deadline");
        }
    }
}

impl Api for Supervisor {
    async fn attach(self: Arc<Self>, caller: Caller, request: AttachRequest) -> Result<Attached, Error> {
        self.attach_rule(caller, request).await
    }

    async fn detach(self: Arc<Self>, caller: Caller, request: DetachRequest) -> Result<Detached, Error> {
        self.detach_rules(caller, request).await
    }

    async fn apply(self: Arc<Self>, caller: Caller, request: ApplyRequest) -> Result<Applied, Error> {
        self.apply_rules(caller, request).await
    }

    async fn export(self: Arc<Self>, caller: Caller) -> Result<Exported, Error> {
        Ok(self.exported(caller).await)
    }

    async fn list(self: Arc<Self>, caller: Caller, target: Option<Target>) -> Result<Listing, Error> {
        self.listing(caller, target).await
    }

    async fn explain(self: Arc<Self>, caller: Caller, request: ExplainRequest) -> Result<Explanation, Error> {
        self.explanation(caller, request).await
    }

    async fn shadowed(self: Arc<Self>, caller: Caller, target: Target) -> Result<Shadows, Error> {
        self.shadows(caller, target).await
    }
}

fn not_steered(target: &Target) -> Error {
    Error::new(Code::NotFound, format!("target `{target}`: this namespace is not steered"))
}

fn failed(call: &str, target: &Target, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::new(Code::Failed, format!("{call} `{target}`: {}", chain(error)))
}

/// Runs work that blocks off the data path's threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = sys::blocking::blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::chain(Code::Failed, &error)))
}

/// How often what should be is compared with what is.
const RECONCILE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::{attach::HostNetns, *};
    use crate::{config::Container, locate::ContainerId};

    fn start() -> (Arc<Supervisor>, Core) {
        let limits = ConnectionLimits { total: 1, per_client: None };
        let opener = Opener::default();
        let own_sockets = OwnSockets::at(&[]).unwrap();
        Supervisor::start(limits, Surroundings { opener, own_sockets, resolve_interval: Duration::ZERO })
            .unwrap()
    }

    #[tokio::test]
    async fn nothing_is_kept_for_a_container_when_the_daemon_ends() {
        let (supervisor, _core) = start();
        supervisor.drain(async {}).await;
        let container = Container { engine: Engine::Docker, name: "web".into() };
        let id = ContainerId::new("0".repeat(64)).unwrap();
        let spec = serde_json::from_str(r#"{"match": ["tcp:80"], "to": ["pass"]}"#).unwrap();
        let kept =
            supervisor.wait_for(&container, (id, "not running".into()), (spec, HostNetns::Refused), false);
        assert_eq!(kept.await.unwrap_err().message, "the daemon is stopping");
        assert!(supervisor.follows.all().is_empty());
    }

    #[tokio::test]
    async fn the_end_waits_no_longer_than_its_deadline_for_a_change_that_does_not_end() {
        let (supervisor, _core) = start();
        let change = supervisor.table.lock().await;
        // The deadline is over at once; the time is that of a failure.
        let drained = tokio::time::timeout(Duration::from_secs(5), supervisor.drain(async {})).await;
        drained.expect("it waits for the change");
        drop(change);
    }
}
