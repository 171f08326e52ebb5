//! Any file that is accepted: what is exported is no difference, and to apply A, then B, then A is A.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{select, subsequence},
    test_runner::{Config, TestRunner},
};
use redirector::config::file::ConfigFile;
use redirector_tests::{daemon::Daemon, scale, topology::Topology, world::World};
use serde_json::{Map, Value, json};

use super::{apply, export, file, namespace, said};

fn some(values: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> {
    subsequence(values, 0..=most.min(values.len()))
}

/// A rule with any of its options.
fn rule() -> impl Strategy<Value = Value> {
    let matches = subsequence(
        &[
            "tcp:80",
            "tcp:443,8000-8099",
            "any:53",
            "udp:*",
            "tcp:10.77.0.0/16:*",
            "tcp:[fd77::/64]:1-100",
            "tcp:10.77.0.1:65535",
        ][..],
        1..=3,
    );
    let from = some(&["10.77.0.0/24", "fd77::2", "0.0.0.0/0"], 2);
    let except = some(&["tcp:10.77.0.1:80", "any:8001", "tcp:[fd77::1]:7"], 2);
    let options = (
        prop::option::of(select(&["low", "a.b-c_d", "x"][..])),
        select(
            &["pass", "reject", "drop", "original", "unix:/run/a b.sock", "127.0.0.1:9", "10.0.0.1:*"][..],
        ),
        select(&["pass", "reject", "drop"][..]),
        select(&[0, i32::MIN, -7, i32::MAX][..]),
        (select(&["5s", "1ms", "1h 2m 3s"][..]), select(&["0s", "1h", "24days"][..])),
        any::<bool>(),
    );
    (matches, from, except, options).prop_map(
        |(matches, from, except, (name, to, on_unavailable, priority, (connect, idle), coexist))| {
            let mut rule = json!({
                "match": matches, "from": from, "except": except, "to": [to], "on_unavailable": on_unavailable,
                "priority": priority, "connect_timeout": connect, "idle_timeout": idle, "coexist": coexist,
            });
            let keys: &mut Map<_, _> = rule.as_object_mut().expect("a table");
            keys.extend(name.map(|name| ("name".to_owned(), json!(name))));
            rule
        },
    )
}

/// Rules of one or two namespaces that are accepted.
fn accepted() -> impl Strategy<Value = [Vec<Value>; 2]> {
    [vec(rule(), 0..4), vec(rule(), 0..4)].prop_map(|rules| rules.map(keep_good))
}

/// Without those that are refused alone, or whose name another one has.
fn keep_good(rules: Vec<Value>) -> Vec<Value> {
    let mut good: Vec<Value> = Vec::new();
    for rule in rules {
        let is_good = ConfigFile::parse(file(&[namespace("netns:a", &json!([rule]))]).as_bytes()).is_ok();
        let is_known =
            good.iter().any(|one| rule.get("name").is_some() && one.get("name") == rule.get("name"));
        if is_good && !is_known {
            good.push(rule);
        }
    }
    good
}

#[test]
fn what_is_exported_is_no_difference_and_a_then_b_then_a_is_a() {
    let world = World::with(Daemon::start(), Topology::new());
    let targets = [world.target(), world.net.client.target()];
    let text = |rules: &[Vec<Value>; 2]| {
        let used = targets.iter().zip(rules).filter(|(_, rules)| !rules.is_empty());
        file(&used.map(|(target, rules)| namespace(target, &json!(rules))).collect::<Vec<_>>())
    };
    let mut runner = TestRunner::new(Config {
        cases: scale::cases() / 20,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&(accepted(), accepted()), |(one, other)| {
        let (one, other) = (text(&one), text(&other));
        said(apply(&world, &one, &[]));
        let first = export(&world);
        let (lines, _) = said(apply(&world, &first, &["--dry-run"]));
        prop_assert_eq!(lines, Vec::<String>::new(), "what is exported is no difference:\n{}", one);
        said(apply(&world, &other, &[]));
        said(apply(&world, &one, &[]));
        prop_assert_eq!(export(&world), first, "A, then B, then A:\n{}\nB:\n{}", one, other);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
