//! Rules in force: what they need, when they are down, and which one a connection belongs to.

use super::*;
use crate::{
    intent::testing::{check, lines, name, rule},
    listener::OriginalDst,
};

fn state(rule: Arc<Rule>, index: u32) -> Arc<RuleState> {
    let consumer = if rule.to == Destination::Handoff { 1 } else { CONSUMER_RELAY };
    Arc::new(RuleState::new(rule, (index, consumer), Whereabouts::default()))
}

fn rule_of(named: &str, spec: serde_json::Value) -> Arc<Rule> {
    let spec: crate::config::RuleSpec = serde_json::from_value(spec).expect("a rule");
    Arc::new(spec.named(name(named)))
}

/// Each line `NAME PORT[>TO][%INTERFACE]` is a rule.
fn table(text: &str) -> RuleTable {
    let rules = lines(text).zip(0..).map(|(line, index)| {
        let (named, says) = line.split_once(' ').expect("NAME PORT");
        let state = state(rule(named, says), index);
        state.set_interfaces(&[("eth0".into(), InterfaceIndex(2))]);
        state
    });
    RuleTable::new(rules.collect(), &RuleSets::default()).expect("they fit")
}

/// Each line: rules, and what they need.
#[test]
fn a_rule_set_needs_the_sockets_that_its_rules_lead_to() {
    let cases = [
        ["", " counters 0"],
        ["a 80>pass", " counters 1"],
        ["a 80>reject; b 81>handoff", " counters 2"],
        ["a 80>original", "relay counters 1"],
        ["a 80>unix:/run/x", "relay counters 1"],
        ["a 80>127.0.0.1:1", "relay counters 1"],
        ["a 80>netns:x/127.0.0.1:1", "relay counters 1"],
        ["a 80>drop", "tcp counters 1"],
        ["a 80>drop; b 81>original", "relay tcp counters 2"],
    ];
    check(&cases, |case| {
        let table = table(case[0]);
        let needs = table.needs();
        let relay = needs.relay.then_some("relay");
        let black_hole = needs.black_hole.iter().map(|one| if *one == PROTOCOL_TCP { "tcp" } else { "udp" });
        let words: Vec<_> = relay.into_iter().chain(black_hole).collect();
        format!("{} counters {}", words.join(" "), table.counters())
    });
    let udp = rule_of("a", serde_json::json!({"match": ["udp:53", "tcp:53"], "to": ["drop"]}));
    let table = RuleTable::new(vec![state(udp, 4)], &RuleSets::default()).unwrap();
    assert_eq!((table.needs().black_hole, table.counters()), (vec![PROTOCOL_TCP, PROTOCOL_UDP], 5));
    let down =
        rule_of("a", serde_json::json!({"match": ["tcp:1"], "to": ["original"], "on_unavailable": "drop"}));
    let needs = RuleTable::new(vec![state(down, 0)], &RuleSets::default()).unwrap().needs();
    assert!(needs.relay && needs.black_hole == [PROTOCOL_TCP]);
}

/// Each line: what a rule says, what happens (`f` a failed dial, `s` one that succeeds, `u` that it is marked up), and for each failure
/// whether it takes the rule down.
#[test]
fn three_failures_in_a_row_take_down_a_rule_with_one_destination() {
    let cases = [
        ["80>127.0.0.1:1", "ff", "--"],
        ["80>127.0.0.1:1", "fff", "--!"],
        ["80>127.0.0.1:1", "ffff", "--!-"],
        ["80>127.0.0.1:1", "ffsff", "----"],
        ["80>127.0.0.1:1", "ffsfff", "----!"],
        ["80>127.0.0.1:1", "fffufff", "--!--!"],
        ["80>unix:/run/x", "fff", "--!"],
        ["80>netns:x/127.0.0.1:1", "fff", "--!"],
        // What the client asks for may be a port that is closed.
        ["80>original", "fff", "---"],
        ["80>127.0.0.1:*", "fff", "---"],
        ["80>netns:x/127.0.0.1:*", "fff", "---"],
    ];
    check(&cases, |case| {
        let state = state(rule("a", case[0]), 0);
        let happens = |what: char| match what {
            'f' => Some(if state.dial_failed(String::new) { '!' } else { '-' }),
            's' => {
                state.dial_succeeded();
                None
            }
            _ => {
                state.mark_up();
                assert!(!state.is_down());
                None
            }
        };
        let told: String = case[1].chars().filter_map(happens).collect();
        assert_eq!(state.is_down(), told.contains('!'));
        told
    });
}

/// Each line: rules now, rules before, where the connection goes, the rule that it belongs to.
#[test]
fn a_connection_belongs_to_the_rule_in_force_or_to_the_one_before() {
    let cases = [
        ["a 80>original", "", "80", "a"],
        ["a 80>original", "", "81", ""],
        ["a 80>original; b 81>127.0.0.1:1", "", "81", "b"],
        // What was steered just before the change is the relay's all the same.
        ["", "a 80>original", "80", "a"],
        ["b 81>original", "a 80>original", "80", "a"],
        ["b 80>original", "a 80>original", "80", "b"],
        ["b 80>reject", "a 80>original", "80", "a"],
        // The relay has nothing of these.
        ["a 80>handoff", "", "80", ""],
        ["a 80>pass", "", "80", ""],
        ["a 80>reject", "", "80", ""],
        // By which interface it came is asked where that matters.
        ["a 80>original%eth0", "", "80", "a asked"],
        ["a 80>original%eth1", "", "80", " asked"],
        ["a 80>original", "b 80>original%eth0", "80", "a asked"],
    ];
    check(&cases, |case| {
        let previous = Some(case[1]).filter(|text| !text.is_empty()).map(|text| Arc::new(table(text)));
        let published = Published::new(Arc::new(table(case[0])), previous);
        let asked = std::cell::Cell::new(false);
        let ingress = || {
            asked.set(true);
            Some(2)
        };
        let client = Client("10.0.0.9:40000".parse().unwrap());
        let original = OriginalDst(format!("10.0.0.1:{}", case[2]).parse().unwrap());
        let state = published.attribute(client, original, ingress);
        let named = state.map(|state| state.rule.name.to_string()).unwrap_or_default();
        format!("{named}{}", if asked.get() { " asked" } else { "" })
    });
    let published = Published::new(Arc::new(table("a 80>original%eth0")), None);
    let client = Client("10.0.0.9:40000".parse().unwrap());
    let original = OriginalDst("10.0.0.1:80".parse().unwrap());
    assert!(published.attribute(client, original, || None).is_none(), "the connection is gone");
}

/// Each line: what the rule names, the interfaces there, whether that is news, those that are missing, and whether what was compiled
/// with `eth0` as number 2 is outdated.
#[test]
fn a_rule_knows_which_of_its_interfaces_are_there() {
    let cases = [
        ["80%eth0", "eth0=2", "-  current"],
        ["80%eth0", "eth0=3", "news  outdated"],
        ["80%eth0", "lo=1", "news eth0 outdated"],
        ["80%eth0", "", "news eth0 outdated"],
        ["80%eth0", "lo=1 eth0=2", "-  current"],
        ["80", "eth0=7", "-  current"],
        ["80%eth9", "eth0=2", "- eth9 current"],
        ["80%eth9", "eth0=2 eth9=9", "news  outdated"],
    ];
    check(&cases, |case| {
        let table = table(&format!("a {}", case[0]));
        let state = table.get(&name("a")).unwrap();
        let present: Vec<_> = case[1]
            .split_whitespace()
            .map(|one| one.split_once('=').unwrap())
            .map(|(named, index)| (named.to_owned(), InterfaceIndex(index.parse().unwrap())))
            .collect();
        let news = if state.set_interfaces(&present) { "news" } else { "-" };
        let missing: Vec<_> = state.missing_interfaces().iter().map(ToString::to_string).collect();
        let outdated = if table.is_outdated() { "outdated" } else { "current" };
        assert_eq!(table.names_interfaces(), case[0].contains('%'));
        format!("{news} {} {outdated}", missing.join(" "))
    });
}

#[test]
fn rules_are_found_by_name_and_number_and_no_more_interfaces_than_fit() {
    let table = table("b 81; a 80");
    let names: Vec<_> = table.rules().iter().map(|state| state.rule.name.to_string()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(table.by_index(0).unwrap().rule.name, name("b"));
    assert!(table.by_index(2).is_none() && table.get(&name("c")).is_none());
    let naming = |count: u32| {
        let rules =
            (0..count).map(|index| state(rule(&format!("r{index}"), &format!("80%eth{index}")), index));
        RuleTable::new(rules.collect(), &RuleSets::default()).map(|_| ())
    };
    assert!(naming(interfaces::MAX).is_ok());
    assert!(matches!(naming(interfaces::MAX + 1), Err(CompileError::TooManyInterfaces)));
}

#[test]
fn what_decides_while_a_socket_cannot_be_had_is_what_the_rule_says_or_the_next_best() {
    let of = |to: &str, then: &str| {
        let spec = serde_json::json!({"match": ["tcp:1"], "to": [to], "on_unavailable": then});
        state(rule_of("a", spec), 0).on_unavailable()
    };
    assert_eq!(of("original", "pass"), OnUnavailable::Pass);
    assert_eq!(of("original", "drop"), OnUnavailable::Drop);
    assert_eq!(of("drop", "pass"), OnUnavailable::Reject);
    let down = state(rule("a", "80>original"), 0);
    assert!(down.take_down(String::new) && !down.take_down(String::new) && down.is_down());
}

#[test]
fn what_was_in_force_before_is_let_go_of_when_no_handshake_can_be_of_it() {
    let known = RuleSets::default();
    let table = || Arc::new(RuleTable::new(Vec::new(), &known).unwrap());
    let before = table();
    let published = Published::new(table(), Some(Arc::clone(&before)));
    let then = published.since;
    assert!(published.expired(then + Duration::from_secs(63)).is_none(), "a client may still answer");
    let left = published.expired(then + Duration::from_secs(65)).expect("it is over");
    assert!(left.previous.is_none() && Arc::ptr_eq(&left.current, &published.current));
    assert!(left.expired(then + Duration::from_secs(130)).is_none(), "there is nothing to let go of");
    drop(published);
    assert_eq!(Arc::strong_count(&before), 1, "its rules hold names, sockets and namespaces");
}
