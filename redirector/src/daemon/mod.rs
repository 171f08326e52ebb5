//! The daemon: what it does by itself, what it is asked for, and its end.

mod api;
mod core;
mod drain;
mod tend;

use std::{
    io,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::sync::{Mutex, mpsc, watch};

pub use self::core::Core;
use self::tend::{Events, tend};
use crate::{
    config::Engine,
    dial::{Names, OwnSockets, Remotes},
    kernel::Shared,
    locate::{MountChanges, Opener, Watch},
    netns::NetnsCookie,
    reconcile::{Ways, World, discover, end_leases, follow, follow_names, retry},
    steer::{All, Limits, Maker, instances_in_stock},
};

pub use crate::steer::{ConnectionLimits, affordable_connections, raise_limits};

/// What it is asked for goes to the world; what it does by itself are the tasks of its core.
#[derive(Debug)]
pub struct Daemon {
    world: Arc<World>,
    /// Held by whoever looks for rules that never decide, which takes long.
    shadowing: Mutex<()>,
    /// Somebody has asked for something lately: it has taken memory that may be free by now.
    asked: Arc<AtomicBool>,
}

/// What the daemon depends on, beside the kernel.
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

impl Daemon {
    /// Begins with nothing steered. What it does by itself ends with the core.
    ///
    /// # Errors
    ///
    /// When the daemon's own namespace or the mount table cannot be read.
    pub fn start(limits: ConnectionLimits, surroundings: Surroundings) -> io::Result<(Arc<Self>, Core)> {
        let Surroundings { opener, own_sockets, resolve_interval } = surroundings;
        let own = NetnsCookie::here().map_err(io::Error::other)?;
        let (watch, watching, deaths) = Watch::new()?;
        let (went_down, went_down_events) = mpsc::unbounded_channel();
        let limits = Arc::new(Limits::new(limits));
        let watch = Arc::new(watch);
        let remotes = Arc::new(Remotes::new(Arc::clone(&watch), limits.stock(), resolve_interval));
        let names = Names::new(resolve_interval, limits.look_ups());
        let maker = Maker {
            limits,
            watch,
            kernel: Arc::new(Shared::default().with_stock(instances_in_stock())),
            selves: Arc::default(),
            outgoing: Arc::default(),
            own,
            went_down,
            all: All::default(),
        };
        let world =
            Arc::new(World::new(maker, Ways { remotes, names, own_sockets: Arc::new(own_sockets) }, opener));
        let (mut core, asked) = (Core::default(), Arc::<AtomicBool>::default());
        core.start("notices that namespaces die", watching);
        let events = Events { deaths, went_down: went_down_events, asked: Arc::clone(&asked) };
        core.start("tends what is steered", tend(Arc::clone(&world), events));
        core.start("ends leases", end_leases(Arc::clone(&world)));
        core.start("tries again what was set aside", retry(Arc::clone(&world)));
        core.start("follows names and paths", follow_names(Arc::clone(&world), MountChanges::new()?));
        for engine in Engine::ALL {
            core.start("follows containers", follow(Arc::clone(&world), engine));
            core.start("looks for containers by their labels", discover(Arc::clone(&world), engine));
        }
        Ok((Arc::new(Self { world, shadowing: Mutex::default(), asked }), core))
    }

    /// How many namespaces of the file that was applied last are set aside, and each change of that.
    #[must_use]
    pub fn set_aside(&self) -> watch::Receiver<usize> {
        self.world.set_aside.count()
    }

    /// Stops steering everything at once, waits for the relayed connections, and resets those that are left
    /// when `deadline` is ready, also where a change has not ended by then.
    pub async fn drain(&self, deadline: impl Future<Output = ()>) {
        drain::drain(&self.world, deadline).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::Scope;

    fn start() -> (Arc<Daemon>, Core) {
        let limits = ConnectionLimits { total: 1, files: u64::MAX, per_client: None };
        let opener = Opener::default();
        let own_sockets = OwnSockets::at(&[]).unwrap();
        Daemon::start(limits, Surroundings { opener, own_sockets, resolve_interval: Duration::ZERO }).unwrap()
    }

    #[tokio::test]
    async fn the_end_waits_no_longer_than_its_deadline_for_a_change_that_does_not_end() {
        let (daemon, _core) = start();
        let change = daemon.world.turns.take(Scope::All).await;
        // The deadline is over at once; the time is that of a failure.
        let drained = tokio::time::timeout(Duration::from_secs(5), daemon.drain(async {})).await;
        drained.expect("it waits for the change");
        drop(change);
    }
}
