//! What tests of plans say what is there with, and what comes of it: lines of text, so that a case is a line of a table.
//!
//! One rule that is wanted is `PLACE NAME PORT[>TO] WHO [TARGET[=ID]]`. The place is the number of a namespace, or `-` where
//! it waits; a `^` behind the target says that the rule stays where it comes to. A container that was seen has an id. Who wants it is `api`, `file[:SET]`, `lease` or `found`, with a `!` where the host's namespace may be meant. `TO` is
//! `reject` where it is not said; behind it `%INTERFACE`, and `~` for `coexist`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde_json::json;

use super::{Edit, Follows, HostNetns, Intended, Store, Subject};
use crate::{
    config::{Container, Origin, Rule, RuleName, RuleSpec, SetName, Target},
    locate::ContainerId,
    netns::NetnsCookie,
};

/// Runs each line of a table, whose last word is what has to come of the others. Prints all that fail.
#[track_caller]
pub(crate) fn check<const WORDS: usize>(cases: &[[&str; WORDS]], run: impl Fn(&[&str]) -> String) {
    let failure = |case: &[&str; WORDS]| {
        let (expected, given) = case.split_last()?;
        let found = catch_unwind(AssertUnwindSafe(|| run(given))).unwrap_or_else(|_| "a panic".into());
        (found != *expected)
            .then(|| format!("{given:?}\n  gives    {found:?}\n  but has to give {expected:?}"))
    };
    let failures: Vec<_> = cases.iter().filter_map(failure).collect();
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// The lines of a text.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split(';').map(str::trim).filter(|line| !line.is_empty())
}

pub(crate) fn name(text: &str) -> RuleName {
    text.parse().expect("a name of a rule")
}

pub(crate) fn target(text: &str) -> Target {
    text.parse().expect("a target")
}

pub(crate) fn container(text: &str) -> Container {
    match target(text) {
        Target::Container(container) => container,
        other => panic!("`{other}` is no container"),
    }
}

/// `TARGET[=ID][^]`: what a rule follows, and whether it only waits for it.
pub(crate) fn followed(text: &str) -> (Target, Option<ContainerId>, bool) {
    let (text, once) = text.strip_suffix('^').map_or((text, false), |text| (text, true));
    match text.split_once('=') {
        Some((named, digit)) => (target(named), Some(id(digit)), once),
        None => (target(text), None, once),
    }
}

/// The id that consists of one digit.
pub(crate) fn id(digit: &str) -> ContainerId {
    ContainerId::new(digit.repeat(64)).expect("an id")
}

/// `CONTAINER=ID`.
pub(crate) fn container_and_id(text: &str) -> (Container, ContainerId) {
    let (named, digit) = text.split_once('=').expect("CONTAINER=ID");
    (container(named), id(digit))
}

/// `PORT[>TO][%INTERFACE][~]`, under a name where it has one.
pub(crate) fn spec(named: Option<&str>, says: &str) -> RuleSpec {
    let (says, coexist) = says.strip_suffix('~').map_or((says, false), |says| (says, true));
    let (says, interface) = says.split_once('%').map_or((says, None), |(says, one)| (says, Some(one)));
    let (port, to) = says.split_once('>').unwrap_or((says, "reject"));
    let interfaces: Vec<_> = interface.into_iter().collect();
    let says = json!({
        "name": named, "match": [format!("tcp:{port}")], "to": [to], "interface": interfaces, "coexist": coexist,
    });
    serde_json::from_value(says).expect("a rule")
}

pub(crate) fn rule(named: &str, says: &str) -> Arc<Rule> {
    Arc::new(spec(None, says).named(name(named)))
}

/// A rule that is wanted.
pub(crate) fn wanted(line: &str) -> (Subject, Intended) {
    let words: Vec<_> = line.split_whitespace().collect();
    let [place, named, says, who, follows @ ..] = &words[..] else { panic!("no rule: `{line}`") };
    let at = place.trim_end_matches('?').parse().ok().map(NetnsCookie);
    let host_netns = if who.ends_with('!') { HostNetns::Allowed } else { HostNetns::Refused };
    let who = who.trim_end_matches('!');
    let (who, set) = who.split_once(':').map_or((who, None), |(who, set)| (who, Some(SetName::new(set))));
    let origin = match who {
        "api" => Origin::Api,
        "file" | "found" => Origin::File,
        "lease" => Origin::Lease,
        _ => panic!("nobody: `{line}`"),
    };
    let rule = rule(named, says);
    let Some(follows) = follows.first() else {
        let at = at.expect("what follows nothing is somewhere");
        return (at.into(), Intended { host_netns, set, ..Intended::there(at, rule, origin) });
    };
    let (target, id, once) = followed(follows);
    let follows = Some(Box::new(Follows { id, why: "it waits".into(), found: who == "found", once }));
    (Subject::from(&target), Intended { rule, origin, set, host_netns, at, follows })
}

/// All that is wanted.
pub(crate) fn store(text: &str) -> Store {
    let mut edit = Edit::default();
    lines(text).map(wanted).for_each(|(subject, intended)| edit.put(subject, intended));
    let mut store = Store::default();
    store.edit(edit);
    store
}

/// What a rule says.
pub(crate) fn says(rule: &Rule) -> String {
    let matches = rule.matches.first().map(ToString::to_string).unwrap_or_default();
    let mut says = matches.trim_start_matches("tcp:").to_owned();
    let to = rule.to.to_string();
    if to != "reject" {
        says.extend([">", &to]);
    }
    for interface in &rule.interfaces {
        says.extend(["%", interface.as_str()]);
    }
    if rule.coexist {
        says.push('~');
    }
    says
}

/// All that is wanted, as [`store`] reads it.
pub(crate) fn told(store: &Store) -> String {
    let told = |(subject, one): (&Subject, &Intended)| {
        let place = one.at.map_or_else(|| "-".into(), |at| at.to_string());
        let who = match one.origin {
            _ if one.is_found() => "found",
            Origin::Api => "api",
            Origin::File => "file",
            Origin::Lease => "lease",
        };
        let set = one.set.as_ref().filter(|set| !set.is_unnamed()).map(|set| format!(":{set}"));
        let who = format!("{who}{}", set.unwrap_or_default());
        let host = if one.host_netns == HostNetns::Allowed { "!" } else { "" };
        let follows = subject.target().map(|target| {
            let id = one.id().map(|id| format!("={}", &id.to_string()[..1])).unwrap_or_default();
            format!(" {target}{id}{}", if one.is_once() { "^" } else { "" })
        });
        let follows = follows.unwrap_or_default();
        format!("{place} {} {} {who}{host}{follows}", one.rule.name, says(&one.rule))
    };
    store.all().map(told).collect::<Vec<_>>().join("; ")
}
