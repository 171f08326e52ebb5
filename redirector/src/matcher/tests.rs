//! The compiled form against the rules as users write them.

use redirector_ebpf::CONSUMER_RELAY;
use serde_json::json;

use super::*;
use crate::{config::RuleSpec, kernel::flow};

fn rules(specs: &[serde_json::Value]) -> Vec<Rule> {
    let rule = |(index, spec): (usize, &serde_json::Value)| {
        let spec: RuleSpec = serde_json::from_value(spec.clone()).expect("a rule");
        spec.validate().expect("a good rule");
        spec.named(format!("r{index}").parse().expect("a name"))
    };
    specs.iter().enumerate().map(rule).collect()
}

fn compiled(rules: &[Rule]) -> Result<Image, CompileError> {
    compile(rules.iter().zip(0..).map(|(rule, index)| Placed {
        rule,
        index,
        consumer: CONSUMER_RELAY,
        flags: 0,
    }))
}

#[track_caller]
fn assert_decides(image: &Image, from: &str, to: &str, rule: Option<u32>) {
    assert_eq!(
        image.decide(&flow(from.parse().unwrap(), to.parse().unwrap())).map(|decision| decision.rule),
        rule,
        "{from} to {to}"
    );
}

#[test]
fn no_rules_take_nothing() {
    let image = compiled(&[]).unwrap();
    assert!(matches!(image, Image::Small(_)));
    assert_decides(&image, "10.0.0.1:1", "10.0.0.2:80", None);
    assert_decides(&image, "[fd00::1]:1", "[fd00::2]:80", None);
}

#[test]
fn the_longer_prefix_decides_in_both_families() {
    let rules = rules(&[
        json!({"match": ["tcp:*"], "to": ["pass"]}),
        json!({"match": ["tcp:10.0.0.0/8:*", "tcp:[fd00::/8]:*"], "to": ["pass"]}),
        json!({"match": ["tcp:10.1.0.0/16:80", "tcp:[fd77::/16]:80"], "to": ["pass"]}),
        json!({"match": ["tcp:10.1.0.1:80", "tcp:[fd77::1]:80"], "to": ["pass"]}),
    ]);
    let image = compiled(&rules).unwrap();
    for (to, rule) in [
        ("11.0.0.1:80", 0),
        ("10.0.0.1:80", 1),
        ("10.1.0.2:81", 1),
        ("10.1.0.2:80", 2),
        ("10.1.0.1:80", 3),
        ("10.1.0.1:81", 1),
    ] {
        assert_decides(&image, "10.9.9.9:1", to, Some(rule));
    }
    for (to, rule) in [
        ("[2001::1]:80", 0),
        ("[fd00::1]:80", 1),
        ("[fd77::2]:81", 1),
        ("[fd77::2]:80", 2),
        ("[fd77::1]:80", 3),
        ("[fd77::1]:81", 1),
    ] {
        assert_decides(&image, "[fd00::9]:1", to, Some(rule));
    }
}

#[test]
fn sources_exceptions_and_priorities() {
    let rules = rules(&[
        json!({"match": ["tcp:80"], "to": ["pass"]}),
        json!({"match": ["tcp:80"], "from": ["10.0.0.0/8"], "to": ["pass"]}),
        json!({"match": ["tcp:80"], "from": ["10.0.0.1"], "except": ["tcp:10.2.0.0/16:80"], "to": ["pass"]}),
        json!({"match": ["tcp:10.3.0.0/16:1-100"], "from": ["10.0.0.0/8", "fd00::/8"], "to": ["pass"]}),
        json!({"match": ["tcp:79-81"], "except": ["tcp:80"], "priority": 1, "to": ["pass"]}),
        json!({"match": ["tcp:10.4.0.0/16:*"], "priority": -1, "to": ["pass"]}),
    ]);
    let image = compiled(&rules).unwrap();
    for (from, to, rule) in [
        ("11.0.0.1:1", "10.1.0.1:80", Some(0)),
        ("10.0.0.2:1", "10.1.0.1:80", Some(1)),
        ("10.0.0.1:1", "10.1.0.1:80", Some(2)),
        ("10.0.0.1:1", "10.2.0.1:80", Some(1)),
        ("10.0.0.1:1", "10.3.0.1:80", Some(3)),
        ("11.0.0.1:1", "10.3.0.1:80", Some(0)),
        ("10.0.0.1:1", "10.3.0.1:79", Some(4)),
        ("10.0.0.1:1", "10.3.0.1:78", Some(3)),
        ("11.0.0.1:1", "10.3.0.1:78", None),
        ("11.0.0.1:1", "10.4.0.1:80", Some(0)),
        ("11.0.0.1:1", "10.4.0.1:443", Some(5)),
        ("[fd00::1]:1", "[fd00::2]:80", Some(0)),
        ("[fd00::1]:1", "[fd00::2]:81", Some(4)),
        ("[fd00::1]:1", "[fd00::2]:82", None),
    ] {
        assert_decides(&image, from, to, rule);
    }
}

#[test]
fn the_same_rules_give_the_same_image() {
    let rules = rules(&[
        json!({"match": ["tcp:80,443,1000-2000", "tcp:10.0.0.0/8:*"], "from": ["10.0.0.0/8", "fd00::/8"], "to": ["pass"]}),
        json!({"match": ["tcp:[fd00::/16]:*"], "except": ["tcp:[fd00::1]:80"], "to": ["reject"]}),
    ]);
    assert!(compiled(&rules) == compiled(&rules));
}

#[test]
fn rules_that_overlap_too_much_are_refused() {
    // Each port of each destination with each source is another answer.
    let spec = |number: usize| {
        json!({
            "match": [format!("tcp:10.0.0.0/8:{}-{}", 1 + number, 30_000 + number)],
            "from": [format!("10.{}.{}.0/24", number / 256, number % 256)],
            "to": ["pass"],
        })
    };
    let rules = rules(&(0..4000).map(spec).collect::<Vec<_>>());
    assert_eq!(compiled(&rules).unwrap_err(), CompileError::TooLarge);
}
