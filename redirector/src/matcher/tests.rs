//! The compiled form against the rules as users write them.

use redirector_ebpf::image::looks;
use serde_json::json;

use super::*;
use crate::{
    config::{Rule, RuleSpec},
    kernel::{flow, flow_of},
};

fn rules(specs: &[serde_json::Value]) -> Vec<Rule> {
    let rule = |(index, spec): (usize, &serde_json::Value)| {
        let spec: RuleSpec = serde_json::from_value(spec.clone()).expect("a rule");
        spec.validate().expect("a good rule");
        spec.named(format!("r{index}").parse().expect("a name"))
    };
    specs.iter().enumerate().map(rule).collect()
}

fn compiled(rules: &[Rule]) -> Result<Image, CompileError> {
    compile(rules.iter().zip(0..).map(|(rule, index)| Placed::new(rule, index)))
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
    assert_eq!(image.size(), 2 << 10);
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

/// Each of so many ranges of ports, with each of so many sources, is another answer.
fn overlapping(ranges: usize, sources: usize) -> Vec<serde_json::Value> {
    let sources: Vec<_> =
        (0..sources).map(|number| format!("10.{}.{}.0/24", number / 256, number % 256)).collect();
    let rule = |sources: &[String], number: usize| {
        let matches = (0..ranges).map(|range| {
            let range = number * ranges + range;
            format!("tcp:10.0.0.0/8:{}-{}", 1 + range, 20_000 + range)
        });
        json!({"match": matches.collect::<Vec<_>>(), "from": sources, "to": ["pass"]})
    };
    sources.chunks(64).enumerate().map(|(number, sources)| rule(sources, number)).collect()
}

#[test]
fn an_image_says_what_is_looked_at() {
    let cases = [
        (json!({"match": ["tcp:80"]}), 0),
        (json!({"match": ["tcp:10.0.0.0/8:80"]}), looks::IPV4_DESTINATIONS),
        (json!({"match": ["udp:[fd00::1]:*"]}), looks::IPV6_DESTINATIONS),
        (json!({"match": ["tcp:*"], "from": ["10.0.0.0/8"]}), looks::IPV4_SOURCES),
        (json!({"match": ["tcp:*"], "from": ["fd00::/8"]}), looks::IPV6_SOURCES),
        (
            json!({"match": ["tcp:10.0.0.0/8:*"], "from": ["10.0.0.0/8"]}),
            looks::IPV4_DESTINATIONS | looks::IPV4_SOURCES | looks::PAIRS,
        ),
        (json!({"match": ["tcp:*"], "except": ["tcp:[fd00::1]:22"]}), looks::IPV6_DESTINATIONS),
        (json!({"match": ["tcp:80"], "interface": ["eth0"]}), looks::INTERFACES),
        (
            json!({"match": ["any:80"], "from": ["10.0.0.1", "fd00::1"], "interface": ["eth0"]}),
            looks::IPV4_SOURCES | looks::IPV6_SOURCES | looks::INTERFACES,
        ),
    ];
    let mut seen = 0;
    for (mut spec, expected) in cases {
        spec["to"] = json!(["pass"]);
        let rules = rules(&[spec]);
        let placed = rules.iter().map(|rule| Placed { interfaces: &[3], ..Placed::new(rule, 0) });
        let looks = compile(placed).unwrap().looks();
        assert_eq!(looks, expected, "{rules:?}: {looks:#b}");
        seen |= looks;
    }
    assert_eq!(seen, looks::ALL, "every look has a case");
}

#[test]
fn rules_that_overlap_too_much_are_refused() {
    assert!(compiled(&rules(&overlapping(8, 640))).is_ok());
    assert_eq!(compiled(&rules(&overlapping(8, 2048))).unwrap_err(), CompileError::TooLarge);
    let many = (0..128).map(|number| {
        let ports: Vec<_> = (0..64).map(|item| (1 + number + 1000 * item).to_string()).collect();
        json!({
            "match": (0..64).map(|item| format!("tcp:10.{item}.0.0/16:{}", ports.join(","))).collect::<Vec<_>>(),
            "from": (0..64).map(|item| format!("10.{number}.{item}.0/24")).collect::<Vec<_>>(),
            "to": ["pass"],
        })
    });
    assert_eq!(compiled(&rules(&many.collect::<Vec<_>>())).unwrap_err(), CompileError::TooMuchWork);
}

#[test]
fn a_rule_that_is_taken_away_may_have_hidden_how_others_overlap() {
    let mut specs = overlapping(8, 2048);
    specs.push(json!({"match": ["tcp:10.0.0.0/8:*"], "priority": 1, "to": ["pass"]}));
    assert!(compiled(&rules(&specs)).is_ok());
    specs.pop();
    assert!(compiled(&rules(&specs)).is_err());
}

#[test]
fn few_rules_are_small() {
    let one = rules(&[
        json!({"match": [format!("tcp:{}", (1..=30).map(|item| (item * 999).to_string()).collect::<Vec<_>>().join(","))], "to": ["pass"]}),
    ]);
    assert_eq!(compiled(&one).unwrap().size(), 4 << 10);
    let spec = |number: usize| json!({"match": [format!("tcp:{},{}", number * 3000 + 80, number * 3000 + 443)], "to": ["pass"]});
    let sixteen = rules(&(0..16).map(spec).collect::<Vec<_>>());
    assert_eq!(compiled(&sixteen).unwrap().size(), 4 << 10);
}

#[test]
fn a_match_of_which_nothing_is_left_is_refused() {
    for (matching, from, except, is_good) in [
        ("tcp:1-100", "", "tcp:1-50 tcp:51-100", false),
        ("tcp:1-100", "", "tcp:1-50 tcp:52-100", true),
        ("tcp:80", "", "tcp:0.0.0.0/0:80 tcp:[::/0]:80", false),
        ("tcp:80", "", "tcp:0.0.0.0/0:80", true),
        ("tcp:80", "10.0.0.0/8", "tcp:0.0.0.0/0:80", false),
        ("tcp:10.0.0.0/8:80", "", "tcp:10.0.0.0/9:80", true),
        ("tcp:10.0.0.1:80", "", "tcp:10.0.0.0/8:*", false),
    ] {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let spec = json!({"match": [matching], "from": words(from), "except": words(except), "to": ["pass"]});
        let spec: RuleSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(spec.validate().is_ok(), is_good, "{matching} from {from} except {except}");
    }
}

/// What is said of a flow by an interface that no rule has.
fn told(rules: &[Rule], flow: &str) -> Vec<String> {
    let placed: Vec<_> = rules.iter().zip(0..).map(|(rule, index)| Placed::new(rule, index)).collect();
    let (image, flow) = (compiled(rules).unwrap(), flow.parse().unwrap());
    let decided = image.decide(&flow_of(&flow, 0)).map(|decision| decision.rule);
    let account = account(&placed, (&flow, 0), decided).unwrap();
    let decides = account.decides.map(|cell| format!("{} by {}", cell.rule.name, cell.matching));
    let before = account.before.iter().map(|missed| format!("{}: {missed}", missed.cell.rule.name));
    decides.into_iter().chain(before).collect()
}

#[test]
fn a_decision_is_told_in_words_of_the_rules() {
    let rules = rules(&[
        json!({"match": ["tcp:80", "tcp:10.0.0.0/8:*"], "to": ["pass"]}),
        json!({"match": ["tcp:10.0.0.1:443", "tcp:*"], "to": ["pass"]}),
        json!({"match": ["tcp:80"], "from": ["10.2.0.0/16", "10.3.0.0/16"], "priority": 1, "to": ["pass"]}),
        json!({"match": ["any:10.0.0.0/8:80"], "except": ["tcp:10.0.0.1:80"], "priority": 2, "to": ["pass"]}),
        json!({"match": ["tcp:80"], "interface": ["eth0", "eth1"], "priority": 3, "to": ["pass"]}),
        json!({"match": ["udp:80"], "priority": -1, "to": ["pass"]}),
    ]);
    assert_eq!(
        told(&rules, "tcp 10.1.0.1:1 -> 10.0.0.1:80"),
        [
            "r0 by tcp:10.0.0.0/8:*",
            "r4: it is for what comes by `eth0`, `eth1`, and nothing of that is there",
            "r3: its exception `tcp:10.0.0.1:80` leaves it out",
            "r2: the client is not in `10.2.0.0/16`, nor in another of its `from`",
            "r1: its match `tcp:*` takes it as well, and comes later in the order",
        ]
    );
    assert_eq!(
        told(&rules, "udp [fd00::1]:1 -> [fd00::2]:81").last().unwrap(),
        "r5: its match `udp:80` is of other ports"
    );
    assert_eq!(told(&rules, "udp [fd00::1]:1 -> [fd00::2]:80")[0], "r5 by udp:80");
}

#[test]
fn a_description_that_does_not_fit_is_an_error() {
    let rules =
        rules(&[json!({"match": ["tcp:80"], "to": ["pass"]}), json!({"match": ["tcp:*"], "to": ["pass"]})]);
    let placed: Vec<_> = rules.iter().zip(0..).map(|(rule, index)| Placed::new(rule, index)).collect();
    let flow = "tcp 10.0.0.1:1 -> 10.0.0.2:80".parse().unwrap();
    let told = |decided| account(&placed, (&flow, 0), decided).map(drop);
    let before = |decided: Option<&str>| {
        Err(Disagreement::Before { first: "r0".into(), decided: decided.map(str::to_owned) })
    };
    assert_eq!(told(Some(0)), Ok(()));
    assert_eq!(told(Some(1)), before(Some("r1")));
    assert_eq!(told(None), before(None));
    assert_eq!(told(Some(2)), Err(Disagreement::NoSuchRule(2)));
    let other = "udp 10.0.0.1:1 -> 10.0.0.2:80".parse().unwrap();
    let error = account(&placed, (&other, 0), Some(0)).unwrap_err();
    assert_eq!(error, Disagreement::Takes("r0".into()));
}

#[test]
fn rules_that_never_decide_are_found_with_those_that_do_instead() {
    for (specs, expected) in [
        (vec![json!({"match": ["tcp:80"], "to": ["pass"]})], ""),
        // The same but for its name.
        (vec![json!({"match": ["tcp:80"], "to": ["pass"]}); 2], "r1 by r0"),
        (
            vec![
                json!({"match": ["tcp:80-81"], "to": ["pass"]}),
                json!({"match": ["tcp:80"], "to": ["pass"]}),
                json!({"match": ["tcp:81"], "to": ["pass"]}),
            ],
            "r0 by r1 r2",
        ),
        // All but one address.
        (
            vec![
                json!({"match": ["tcp:80"], "to": ["pass"]}),
                json!({"match": ["any:80"], "except": ["tcp:[fd00::1]:80"], "priority": 1, "to": ["pass"]}),
            ],
            "",
        ),
        // Both halves, and both families.
        (
            vec![
                json!({"match": ["tcp:80"], "from": ["255.0.0.0/8", "ff00::/8"], "to": ["pass"]}),
                json!({"match": ["tcp:0.0.0.0/1:80", "tcp:128.0.0.0/1:*"], "to": ["pass"]}),
                json!({"match": ["tcp:[::/1]:80", "tcp:[8000::/1]:80"], "to": ["pass"]}),
            ],
            "r0 by r1 r2",
        ),
        (vec![json!({"match": ["tcp:80"], "interface": ["eth0"], "to": ["pass"]})], "r0 absent"),
    ] {
        let rules = rules(&specs);
        let placed: Vec<_> = rules.iter().zip(0..).map(|(rule, index)| Placed::new(rule, index)).collect();
        let found = shadowed(&placed, &compiled(&rules).unwrap()).unwrap();
        let said = found.iter().map(|(rule, shadow)| match shadow {
            Shadow::By(by) => {
                let names: Vec<_> = by.iter().map(|one| one.name.as_str()).collect();
                format!("{} by {}", rule.name, names.join(" "))
            }
            Shadow::Absent => format!("{} absent", rule.name),
            Shadow::Unknown => format!("{} unknown", rule.name),
        });
        assert_eq!(said.collect::<Vec<_>>().join(", "), expected, "{rules:#?}");
    }
}

/// `lo` is 1 and `eth0` is 2; 9 is one that no rule names.
#[test]
fn a_rule_may_leave_interfaces_out() {
    let rules = rules(&[
        json!({"match": ["tcp:80"], "interface": ["!lo"], "to": ["pass"]}),
        json!({"match": ["tcp:80"], "interface": ["eth0"], "to": ["pass"]}),
        json!({"match": ["tcp:80"], "to": ["pass"]}),
        json!({"match": ["tcp:81"], "interface": ["!lo", "!eth0"], "to": ["pass"]}),
        json!({"match": ["tcp:82"], "interface": ["!lo"], "to": ["pass"]}),
        json!({"match": ["tcp:82"], "priority": 1, "to": ["pass"]}),
    ]);
    let interfaces: [&[u32]; 6] = [&[1], &[2], &[], &[1, 2], &[1], &[]];
    let placed = rules.iter().zip(0..).zip(interfaces);
    let placed: Vec<_> =
        placed.map(|((rule, index), interfaces)| Placed { interfaces, ..Placed::new(rule, index) }).collect();
    let image = compile(placed.iter().copied()).unwrap();
    for (port, decided) in
        [(80, [Some(2), Some(1), Some(0)]), (81, [None, None, Some(3)]), (82, [Some(5), Some(5), Some(5)])]
    {
        for (ingress, rule) in [1, 2, 9].into_iter().zip(decided) {
            let flow = flow("10.0.0.1:1".parse().unwrap(), format!("10.0.0.2:{port}").parse().unwrap());
            let decision = image.decide(&redirector_ebpf::Flow { ingress_ifindex: ingress, ..flow });
            assert_eq!(decision.map(|decision| decision.rule), rule, "port {port} by {ingress}");
        }
    }
    let flow = "tcp 10.0.0.1:1 -> 10.0.0.2:81".parse().unwrap();
    let account = account(&placed, (&flow, 1), None).unwrap();
    assert!(
        account
            .before
            .iter()
            .any(|missed| missed.to_string() == "it is for what comes by any interface but `lo`, `eth0`")
    );
    let found = shadowed(&placed, &image).unwrap();
    let names: Vec<_> = found.iter().map(|(rule, _)| rule.name.as_str()).collect();
    assert_eq!(names, ["r4"], "and by the one that takes all");
}
