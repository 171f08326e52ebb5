//! How a rule fares, in words.

use std::{collections::BTreeMap, time::SystemTime};

use redirector_ebpf::Unavailable;

use crate::{
    control::{Availability, FailedDialView, HealthView},
    observe::NotDelivered,
    text::escaped,
};

/// `up` or `down`, with what is amiss.
pub(super) fn fares(state: Availability, health: &HealthView) -> String {
    let HealthView { why, since, last_failure, .. } = health;
    let failing = last_failure.as_ref().filter(|last| last.in_a_row > 0);
    match (why, since, failing) {
        (Some(why), Some(since), _) => format!("{state}: {}, since {}", escaped(why), when(since)),
        (Some(why), None, _) => format!("waiting: {}", escaped(why)),
        (None, _, Some(FailedDialView { in_a_row: 1, why, .. })) => {
            format!("{state}, but the last dial failed: {}", escaped(why))
        }
        (None, _, Some(FailedDialView { in_a_row, why, .. })) => {
            format!("{state}, but the last {in_a_row} dials failed: {}", escaped(why))
        }
        (None, _, None) => state.to_string(),
    }
}

/// The last dial that failed.
pub(super) fn last_failure(last: &FailedDialView) -> String {
    let FailedDialView { at, destination, reason: _, why, in_a_row: _ } = last;
    format!("at {}: {}: {}", when(at), escaped(destination), escaped(why))
}

/// A time of a document: the time of day in UTC, as in the log, with the day where that is another one.
fn when(at: &str) -> String {
    let today = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    on(at, &today)
}

fn on(at: &str, today: &str) -> String {
    let (Some((day, time)), Some((this_day, _))) = (at.split_once('T'), today.split_once('T')) else {
        return escaped(at);
    };
    let time = escaped(time.split(['.', 'Z']).next().unwrap_or(time));
    if day == this_day { format!("{time} UTC") } else { format!("{} {time} UTC", escaped(day)) }
}

/// A count with its reasons.
pub(super) fn with_reasons(total: u64, reasons: &BTreeMap<String, u64>) -> String {
    if reasons.is_empty() {
        return total.to_string();
    }
    let parts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{} {count}", words(reason))).collect();
    format!("{total} ({})", parts.join(", "))
}

/// What a reason of a document means. One of a newer daemon stays as it is.
pub(super) fn words(reason: &str) -> String {
    let failed = NotDelivered::ALL.iter().find(|one| one.name() == reason).map(|one| one.words());
    let unavailable = Unavailable::ALL.into_iter().find(|(_, name)| *name == reason);
    let unavailable = unavailable.map(|(one, _)| match one {
        Unavailable::EmptySlot => "nobody listens",
        Unavailable::NotListening => "its listener was closed",
        Unavailable::WrongProtocol => "its socket is of another protocol",
        Unavailable::WrongFamily => "its socket is of another family",
        Unavailable::AlreadySelected => "another program had chosen a socket",
        Unavailable::OtherErrno => "the kernel refused",
        Unavailable::RuleDown => "down",
    });
    failed.or(unavailable).map_or_else(|| escaped(reason), ToOwned::to_owned)
}

/// What may keep look-ups that were given to a listener from becoming connections.
pub(super) const UNACCEPTED: &str = "handshakes that are under way; a packet filter that drops the answers, or looks up by itself \
    (`socket`, TPROXY); clients that sign with TCP-MD5 or TCP-AO; a full queue";

/// Whether so few of a rule's look-ups have become connections that it is worth a line: none at all, or at most half.
pub(super) fn is_unaccepted(steered: u64, accepted: u64) -> bool {
    let missing = steered.saturating_sub(accepted);
    missing > 0 && (accepted == 0 || missing >= accepted.max(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_day_only_where_that_is_another_one() {
        let today = "2026-11-30T00:00:01Z";
        assert_eq!(on("2026-11-30T14:31:04.123Z", today), "14:31:04 UTC");
        assert_eq!(on("2026-11-29T14:31:04Z", today), "2026-11-29 14:31:04 UTC");
        assert_eq!(on("once\u{7}", today), "once\\u{7}");
    }

    #[test]
    fn every_reason_has_words_and_an_unknown_one_stays() {
        let known = NotDelivered::ALL.iter().map(|one| one.name());
        for name in known.chain(Unavailable::ALL.iter().map(|(_, name)| *name)) {
            let words = words(name);
            assert!(words == "down" || words != name, "{name}");
            assert!(!words.contains('_') && !words.starts_with('E'), "{words}");
        }
        assert_eq!(words("of_a_newer_daemon"), "of_a_newer_daemon");
    }

    #[test]
    fn what_is_amiss_is_said_behind_the_state() {
        let failed = |in_a_row| FailedDialView {
            at: "2020-01-01T00:00:00Z".into(),
            destination: "192.0.2.1:80".into(),
            reason: "connect_refused".into(),
            why: "connection refused".into(),
            in_a_row,
        };
        let view = |why: Option<&str>, since: Option<&str>, in_a_row| HealthView {
            why: why.map(Into::into),
            since: since.map(Into::into),
            last_failure: Some(failed(in_a_row)),
            ..HealthView::default()
        };
        for (state, view, said) in [
            (Availability::Up, view(None, None, 0), "up"),
            (Availability::Up, view(None, None, 1), "up, but the last dial failed: connection refused"),
            (Availability::Up, view(None, None, 2), "up, but the last 2 dials failed: connection refused"),
            (
                Availability::Down,
                view(Some("no"), Some("2020-01-01T14:31:04Z"), 3),
                "down: no, since 2020-01-01 14:31:04 UTC",
            ),
            (Availability::Up, view(Some("it does not listen"), None, 0), "waiting: it does not listen"),
        ] {
            assert_eq!(fares(state, &view), said);
        }
        let said = last_failure(&failed(1));
        assert_eq!(said, "at 2020-01-01 00:00:00 UTC: 192.0.2.1:80: connection refused");
    }

    #[test]
    fn a_rule_whose_lookups_become_no_connections_is_worth_a_line() {
        for (steered, accepted, is_worth) in [
            (0, 0, false),
            (1, 0, true),
            (2, 1, false),
            (3, 1, true),
            (9, 8, false),
            (20, 10, true),
            (5, 9, false),
        ] {
            assert_eq!(is_unaccepted(steered, accepted), is_worth, "{steered} {accepted}");
        }
    }
}
