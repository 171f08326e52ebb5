//! How a rule fares.

use std::{sync::atomic::Ordering, time::SystemTime};

use crate::{
    control::{FailedDialView, HealthView, LeaseView},
    steer::{Down, FailedDial, RuleState},
};

/// How a rule fares; `lease` is of one whose listeners a program holds.
pub(super) fn health(state: &RuleState, lease: Option<&LeaseView>) -> HealthView {
    let tally = &state.tally;
    let down = tally.down().filter(|_| state.is_down());
    let (why, since) = match down {
        Some(Down { why, since }) => (Some(why), Some(rfc3339(since))),
        None => (lease.and_then(deaf).map(Into::into), None),
    };
    let last_failure =
        tally.last_failure().map(|FailedDial { at, destination, reason, why }| FailedDialView {
            at: rfc3339(at),
            destination,
            reason: reason.name().into(),
            why,
            in_a_row: state.failed_in_a_row(),
        });
    HealthView {
        why,
        since,
        accepted: state.needs_relay().then(|| tally.accepted.load(Ordering::Relaxed)),
        failed: tally.not_delivered.nonzero(),
        last_failure,
    }
}

/// Why a program gets no connections, a phrase.
fn deaf(lease: &LeaseView) -> Option<&'static str> {
    if lease.listeners.is_empty() {
        Some("its program does not listen yet")
    } else if lease.listeners.iter().all(|listener| !listener.healthy) {
        Some("its program has closed its listeners")
    } else {
        None
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
