//! What of a rule may surprise the user.

use std::sync::Arc;

use redirector_ebpf::PROTOCOL_UDP;

use crate::{
    config::{Destination, Match, Rule},
    steer::{Found, RuleState},
};

/// Whether there is an interface by which both take something.
fn interfaces_meet(one: &Rule, other: &Rule) -> bool {
    let names = |spec: &Rule| spec.interfaces.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>();
    let (ours, theirs) = (names(one), names(other));
    match (one.excludes_interfaces(), other.excludes_interfaces()) {
        (true, true) => true,
        (true, false) => theirs.is_empty() || theirs.iter().any(|name| !ours.contains(name)),
        (false, true) => ours.is_empty() || ours.iter().any(|name| !theirs.contains(name)),
        (false, false) => have_one_in_common(&ours, &theirs),
    }
}

/// Whether both name the same thing, or neither anything.
fn have_one_in_common<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.iter().any(|named| other.contains(named)) || (one.is_empty() && other.is_empty())
}

/// What may surprise the user.
pub(crate) fn warnings(current: &[Arc<RuleState>], rule: &Rule, found: &Found) -> Vec<String> {
    let mut warnings = Vec::new();
    for matching in &rule.matches {
        if let Some(prefix) = &matching.prefix
            && !found.survey.is_local(prefix)
        {
            let mut warning = format!(
                "match `{matching}`: no address of `{prefix}` is local there; only traffic that is delivered locally is steered"
            );
            if prefix.addr().is_unspecified() && prefix.prefix_len() > 0 {
                warning += &format!("; for every address write `{}:{}`", matching.protocol, matching.ports);
            }
            warnings.push(warning);
        }
    }
    let (low, high) = found.survey.local_ports;
    let of_clients = |(first, last): &(u16, u16)| *first <= high && low <= *last;
    let takes_answers =
        |one: &&Match| one.protocol.includes(PROTOCOL_UDP) && one.ports.ranges().iter().any(of_clients);
    if let Some(matching) = rule.matches.iter().find(takes_answers)
        && rule.to != Destination::Pass
    {
        warnings.push(format!(
            "match `{matching}`: UDP ports {low}-{high} are those of clients there; answers to them are taken as well, those of name servers for example"
        ));
    }
    if found.survey.somaxconn < 128 {
        warnings.push(format!(
            "net.core.somaxconn is {} there: that few connections wait at once to be accepted, more must retry",
            found.survey.somaxconn
        ));
    }
    let twin = current.iter().find(|state| {
        state.rule.name != rule.name
            && have_one_in_common(&state.rule.from, &rule.from)
            && interfaces_meet(&state.rule, rule)
            && state.rule.priority == rule.priority
            && state.rule.matches.iter().any(|one| rule.matches.contains(one))
    });
    if let Some(state) = twin {
        let (first, second) = if state.rule.name < rule.name {
            (&state.rule.name, &rule.name)
        } else {
            (&rule.name, &state.rule.name)
        };
        warnings.push(format!(
            "rules `{first}` and `{second}` have a match in common, which `{first}` takes; to change a rule name it by `--name`"
        ));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::RuleSpec,
        dial::Whereabouts,
        intent::testing::{check, name},
        reconcile::testing::found,
    };

    fn rule(named: &str, spec: &str) -> Arc<Rule> {
        let spec: RuleSpec = serde_json::from_str(spec).expect("a rule");
        Arc::new(spec.named(name(named)))
    }

    /// Each line: the rule `m`, another rule that is there by a name before or behind it, what the warnings are about.
    #[test]
    fn what_may_surprise_is_told_and_nothing_else() {
        let cases = [
            [r#"{"match": ["tcp:80"], "to": ["pass"]}"#, "", ""],
            [r#"{"match": ["tcp:10.0.0.1:80"], "to": ["pass"]}"#, "", ""],
            [r#"{"match": ["tcp:10.0.0.0/8:80"], "to": ["pass"]}"#, "", ""],
            [r#"{"match": ["tcp:10.9.0.1:80"], "to": ["pass"]}"#, "", "prefix"],
            [r#"{"match": ["tcp:10.9.0.1:80", "tcp:[fd09::1]:80"], "to": ["pass"]}"#, "", "prefix prefix"],
            // Clients' ports are 32768 to 60999.
            [r#"{"match": ["udp:53"], "to": ["drop"]}"#, "", ""],
            [r#"{"match": ["udp:40000"], "to": ["drop"]}"#, "", "answers"],
            [r#"{"match": ["udp:1-32768"], "to": ["drop"]}"#, "", "answers"],
            [r#"{"match": ["udp:1-32767", "udp:61000"], "to": ["drop"]}"#, "", ""],
            [r#"{"match": ["udp:60999-65535"], "to": ["drop"]}"#, "", "answers"],
            [r#"{"match": ["udp:40000"], "to": ["pass"]}"#, "", ""],
            [r#"{"match": ["tcp:40000"], "to": ["drop"]}"#, "", ""],
            // Another one takes the same.
            [
                r#"{"match": ["tcp:80"], "to": ["pass"]}"#,
                r#"a {"match": ["tcp:80"], "to": ["reject"]}"#,
                "`a` takes",
            ],
            [
                r#"{"match": ["tcp:80"], "to": ["pass"]}"#,
                r#"z {"match": ["tcp:80"], "to": ["reject"]}"#,
                "`m` takes",
            ],
            [r#"{"match": ["tcp:80"], "to": ["pass"]}"#, r#"m {"match": ["tcp:80"], "to": ["reject"]}"#, ""],
            [r#"{"match": ["tcp:80"], "to": ["pass"]}"#, r#"a {"match": ["tcp:81"], "to": ["reject"]}"#, ""],
            [
                r#"{"match": ["tcp:80"], "to": ["pass"]}"#,
                r#"a {"match": ["tcp:80"], "to": ["reject"], "priority": 1}"#,
                "",
            ],
            [
                r#"{"match": ["tcp:80"], "to": ["pass"], "from": ["10.0.0.0/8"]}"#,
                r#"a {"match": ["tcp:80"], "to": ["reject"]}"#,
                "",
            ],
            [
                r#"{"match": ["tcp:80"], "to": ["pass"], "from": ["10.0.0.0/8"]}"#,
                r#"a {"match": ["tcp:80"], "to": ["reject"], "from": ["fd00::/8", "10.0.0.0/8"]}"#,
                "`a` takes",
            ],
            [
                r#"{"match": ["tcp:80"], "to": ["pass"], "interface": ["eth0"]}"#,
                r#"a {"match": ["tcp:80"], "to": ["reject"], "interface": ["eth1"]}"#,
                "",
            ],
        ];
        check(&cases, |case| {
            let current = case[1].split_once(' ').map(|(named, spec)| {
                Arc::new(RuleState::new(rule(named, spec), (0, 0), Whereabouts::default()))
            });
            let told = warnings(current.as_slice(), &rule("m", case[0]), &found(7, None));
            let kind = |text: &String| match text {
                text if text.contains("is local there") => "prefix",
                text if text.contains("answers to them") => "answers",
                text if text.contains("which `a` takes") => "`a` takes",
                text if text.contains("which `m` takes") => "`m` takes",
                _ => "?",
            };
            told.iter().map(kind).collect::<Vec<_>>().join(" ")
        });
    }

    #[test]
    fn a_short_queue_of_connections_is_told() {
        for (somaxconn, is_told) in [(127, true), (128, false)] {
            let mut seen = found(7, None);
            seen.survey.somaxconn = somaxconn;
            let told = warnings(&[], &rule("m", r#"{"match": ["tcp:80"], "to": ["pass"]}"#), &seen);
            assert_eq!(told.len(), usize::from(is_told), "{somaxconn}: {told:?}");
        }
    }
}
