//! What the daemon takes while nothing happens.

use std::{thread, time::Duration};

use redirector_tests::daemon::Daemon;
use serde_json::{Value, json};

/// How long the daemon is watched while nothing happens.
const REST: Duration = Duration::from_secs(10);

/// Until threads that have nothing to do have ended, and what is free has been given back.
const SETTLE: Duration = Duration::from_secs(12);

/// What a daemon takes.
#[derive(Clone, Copy)]
pub(crate) struct Taken {
    kib: i64,
    fds: usize,
}

impl Taken {
    pub(crate) fn by(daemon: &Daemon) -> Self {
        Self { kib: daemon.anonymous_kib(), fds: daemon.fds_at_rest() }
    }
}

/// Prints what each of these namespaces takes more than nothing, and what all of them cost at rest.
pub(crate) fn rest(daemon: &Daemon, nothing: Taken, count: usize) -> Value {
    let each = |now: i64, before: i64| (now - before) as f64 / count as f64;
    let busy = each(daemon.anonymous_kib(), nothing.kib);
    thread::sleep(SETTLE);
    let before = daemon.cpu_time();
    thread::sleep(REST);
    let percent = (daemon.cpu_time() - before).as_secs_f64() / REST.as_secs_f64() * 100.0;
    let now = Taken::by(daemon);
    let (memory, fds) = (each(now.kib, nothing.kib), (now.fds as f64 - nothing.fds as f64) / count as f64);
    println!(
        "  each {memory:.1} KiB of anonymous memory ({busy:.1} while the daemon is asked) and {fds:.1} fds; at rest {percent:.2} % of a core"
    );
    json!({ "memory_kib": memory, "busy_memory_kib": busy, "fds": fds, "rest_percent": percent })
}
