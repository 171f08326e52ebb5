//! What has become of one rule's connections, and why it is down.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::SystemTime,
};

use crate::{
    dial::DialError,
    observe::{NotDelivered, NotDeliveredCounts},
};

/// Counters and the last failure of one rule, since it is in force as it is.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Connections that the relay has accepted and found to be this rule's.
    pub(crate) accepted: AtomicU64,
    /// Those of them that did not reach the destination.
    pub(crate) not_delivered: NotDeliveredCounts,
    last_failure: Mutex<Option<FailedDial>>,
    /// Why it is down, while it is.
    down: Mutex<Option<Down>>,
}

/// A connection to the destination that could not be made.
#[derive(Clone, Debug)]
pub(crate) struct FailedDial {
    pub(crate) at: SystemTime,
    /// Where it was to go.
    pub(crate) destination: String,
    pub(crate) reason: NotDelivered,
    /// The same, a phrase.
    pub(crate) why: String,
}

/// Why a rule is down, a phrase, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Down {
    pub(crate) why: String,
    pub(crate) since: SystemTime,
}

impl Tally {
    /// One more dial that failed.
    pub(crate) fn dial_failed(&self, error: &DialError) {
        let DialError { reason, endpoint, .. } = error;
        let failed = FailedDial {
            at: SystemTime::now(),
            destination: endpoint.to_string(),
            reason: *reason,
            why: phrase(error),
        };
        *lock(&self.last_failure) = Some(failed);
    }

    pub(crate) fn last_failure(&self) -> Option<FailedDial> {
        lock(&self.last_failure).clone()
    }

    /// It is down from now on.
    pub(crate) fn went_down(&self, why: String) {
        *lock(&self.down) = Some(Down { why, since: SystemTime::now() });
    }

    /// It is still down, for a reason that may be a different one by now.
    pub(crate) fn stays_down(&self, error: &DialError) {
        if let Some(down) = &mut *lock(&self.down) {
            down.why = phrase(error);
        }
    }

    pub(crate) fn went_up(&self) {
        *lock(&self.down) = None;
    }

    pub(crate) fn down(&self) -> Option<Down> {
        lock(&self.down).clone()
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a dial has failed, without the name of an errno.
pub(crate) fn phrase(DialError { reason, source, .. }: &DialError) -> String {
    match reason {
        // What it was is only in the error.
        NotDelivered::NamespaceGone
        | NotDelivered::ConnectError
        | NotDelivered::OwnSocket
        | NotDelivered::OutOfSockets
        | NotDelivered::Unattributed => without_errno(source),
        known => known.words().to_owned(),
    }
}

/// As the standard library shows an error, without ` (os error 2)`.
fn without_errno(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" (os error ") {
        Some((said, number)) if number.ends_with(')') => said.to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Destination, dial::Endpoint};

    #[test]
    fn the_reason_of_a_failure_is_words_and_no_errno() {
        for (reason, errno, said) in [
            (NotDelivered::ConnectRefused, 111, "connection refused"),
            (NotDelivered::ConnectTimeout, 110, "no answer in time"),
            (NotDelivered::ConnectError, 2, "No such file or directory"),
        ] {
            let error = DialError {
                reason,
                endpoint: Endpoint::Rule(Destination::Original),
                source: io::Error::from_raw_os_error(errno),
                may_have_moved: false,
            };
            assert_eq!(phrase(&error), said);
            let tally = Tally::default();
            tally.dial_failed(&error);
            assert_eq!(tally.last_failure().unwrap().why, said);
            tally.stays_down(&error);
            assert!(tally.down().is_none(), "it is not down");
            tally.went_down("it is gone".into());
            let since = tally.down().unwrap().since;
            tally.stays_down(&error);
            assert_eq!((tally.down().unwrap().why, tally.down().unwrap().since), (said.to_owned(), since));
        }
    }
}
