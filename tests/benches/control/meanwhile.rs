//! What others wait for while something large is done.

use std::{
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use redirector_tests::{daemon::Daemon, netns::Netns};
use serde_json::{Value, json};

use crate::{
    ask::{attach, detach, is_steered, list},
    figures::{spread, timed},
};

/// How long others have waited: for a list, for an attach elsewhere, and from the end of a namespace until it is let go of.
#[derive(Default)]
pub(crate) struct Meanwhile {
    lists: Mutex<Vec<f64>>,
    attaches: Mutex<Vec<f64>>,
    deaths: Mutex<Vec<f64>>,
}

fn note(all: &Mutex<Vec<f64>>, took: f64) {
    all.lock().expect("no panic").push(took);
}

impl Meanwhile {
    /// Whether there are enough for what one in a hundred waits, or in fifty.
    pub(crate) fn suffices(&self) -> bool {
        let count = |all: &Mutex<Vec<f64>>| all.lock().expect("no panic").len();
        count(&self.lists) >= 100 && count(&self.deaths) >= 50
    }

    /// Prints what it was, and gives what one in a hundred has waited.
    pub(crate) fn told(self) -> Value {
        let mut document = json!({});
        let figures = [("list", self.lists), ("attach elsewhere", self.attaches), ("death", self.deaths)];
        for (what, all) in figures {
            let all = all.into_inner().expect("no panic");
            if all.is_empty() {
                continue;
            }
            let (count, (median, hundredth, most)) = (all.len(), spread(all));
            println!("    {what}: median {median:.1}, p99 {hundredth:.1}, at most {most:.1} ms, of {count}");
            document[what] = json!({ "median": median, "p99": hundredth, "most": most, "of": count });
        }
        document
    }
}

/// Does `work`, and until it is done what others do. The `mortals` are steered, and end one after the other.
pub(crate) fn meanwhile(
    daemon: &Daemon,
    other: &Netns,
    mortals: Vec<Netns>,
    work: impl FnOnce(&Meanwhile),
) -> Meanwhile {
    let (seen, is_done) = (Meanwhile::default(), AtomicBool::new(false));
    let socket = daemon.socket();
    let goes_on = || !is_done.load(Ordering::Relaxed);
    let pause = || thread::sleep(Duration::from_millis(10));
    thread::scope(|scope| {
        scope.spawn(|| {
            while goes_on() {
                note(&seen.lists, timed(|| list(socket)).1);
                pause();
            }
        });
        scope.spawn(|| {
            let target = other.target();
            while goes_on() {
                note(&seen.attaches, timed(|| attach(socket, &target)).1);
                detach(socket, &target);
                pause();
            }
        });
        scope.spawn(|| {
            for mortal in mortals {
                let took = death(socket, mortal);
                if !goes_on() {
                    return;
                }
                note(&seen.deaths, took);
            }
        });
        work(&seen);
        is_done.store(true, Ordering::Relaxed);
    });
    seen
}

/// Ends a namespace: how long it takes until the daemon has let go of it.
fn death(socket: &Path, mortal: Netns) -> f64 {
    let cookie = mortal.cookie();
    drop(mortal);
    timed(|| {
        while is_steered(socket, cookie) {
            thread::sleep(Duration::from_millis(5));
        }
    })
    .1
}
