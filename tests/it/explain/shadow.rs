//! Rules that can never decide: against brute force where the world is small, and by the command.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use redirector::{
    config::{FlowSpec, Rule, RuleSpec, Transport},
    kernel::flow_of,
    matcher::{Placed, Shadow, compile, shadowed},
};
use redirector_tests::{features::Feature, pattern::Random, scale, server::Server, world::World};
use serde_json::{Value, json};

/// Addresses that rules tell apart, one in the longer prefix only, one outside of all that they name.
const WORLDS: [[&str; 6]; 2] = [
    ["10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.0.0", "11.0.0.0"],
    ["[fd00::]", "[fd00::1]", "[fd00::2]", "[fd00::3]", "[fd00::9]", "[fd01::]"],
];

/// The same of ports.
const PORTS: [u16; 6] = [1, 2, 3, 4, 5, 65_535];

/// Of interfaces: two that rules name, one that they do not.
const INGRESS: [u32; 3] = [11, 12, 13];

const PREFIXES: [&str; 14] = [
    "10.0.0.0/30",
    "10.0.0.0/31",
    "10.0.0.2/31",
    "10.0.0.1",
    "10.0.0.2",
    "0.0.0.0/0",
    "10.0.0.0/8",
    "fd00::/126",
    "fd00::/16",
    "fd00::/127",
    "fd00::2/127",
    "fd00::1",
    "::/0",
    "fd00::3",
];

fn prefix(random: &mut Random) -> &'static str {
    PREFIXES[random.below(PREFIXES.len())]
}

fn matching(random: &mut Random) -> String {
    let protocol = random.one_of(&["tcp", "tcp", "udp", "any"]);
    let ports = random.one_of(&["*", "*", "1-4", "1,3", "2-3", "4", "2-65535", "1"]);
    match random.below(3) {
        0 => format!("{protocol}:{ports}"),
        _ => {
            let prefix = prefix(random);
            let prefix = if prefix.contains(':') { format!("[{prefix}]") } else { prefix.to_owned() };
            format!("{protocol}:{prefix}:{ports}")
        }
    }
}

fn some<T>(
    random: &mut Random,
    one_in: usize,
    most: usize,
    mut make: impl FnMut(&mut Random) -> T,
) -> Vec<T> {
    if random.below(one_in) > 0 {
        return Vec::new();
    }
    (0..1 + random.below(most)).map(|_| make(random)).collect()
}

/// A rule that is good, and the indices of the interfaces that it names and that are there.
fn rule(random: &mut Random, number: usize) -> (Rule, Vec<u32>) {
    loop {
        let matches: Vec<_> = (0..1 + random.below(2)).map(|_| matching(random)).collect();
        let spec = json!({
            "match": matches,
            "from": some(random, 3, 2, prefix),
            "except": some(random, 3, 2, matching),
            "interface": some(random, 4, 2, |random| *random.one_of(&["eth0", "eth1", "gone"])),
            "priority": random.below(3),
            "to": ["pass"],
        });
        let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
        if spec.validate().is_ok() {
            let index = |name: &str| [("eth0", 11), ("eth1", 12)].into_iter().find(|(one, _)| *one == name);
            let present =
                spec.interfaces.iter().filter_map(|one| index(one.as_str())).map(|(_, index)| index);
            let present = present.collect();
            return (spec.named(format!("r{number}").parse().expect("a name")), present);
        }
    }
}

/// Every flow of this world.
fn flows() -> Vec<(FlowSpec, u32)> {
    let mut flows = Vec::new();
    for world in WORLDS {
        let end =
            |address: &str, port: u16| -> SocketAddr { format!("{address}:{port}").parse().expect("an end") };
        for protocol in [Transport::Tcp, Transport::Udp] {
            for (source, destination) in
                world.iter().flat_map(|one| world.iter().map(move |other| (one, other)))
            {
                for (port, ingress) in
                    PORTS.into_iter().flat_map(|port| INGRESS.map(|ingress| (port, ingress)))
                {
                    let (source, destination) = (end(source, 9), end(destination, port));
                    flows.push((FlowSpec { protocol, source, destination, device: None }, ingress));
                }
            }
        }
    }
    flows
}

fn takes(rule: &Rule, present: &[u32], (flow, ingress): &(FlowSpec, u32)) -> bool {
    let contains = |one: &redirector::config::Match| one.contains(flow.protocol.number(), flow.destination);
    rule.matches.iter().any(contains)
        && !rule.except.iter().any(contains)
        && (rule.from.is_empty() || rule.from.iter().any(|source| source.contains(flow.source.ip())))
        && (rule.interfaces.is_empty() || present.contains(ingress))
}

#[test]
fn exactly_those_are_found_that_take_nothing() {
    let (flows, mut random) = (flows(), Random::new(20));
    let mut seen = BTreeMap::<&str, usize>::new();
    for case in 0..scale::cases() {
        let rules: Vec<_> = (0..2 + random.below(6)).map(|number| rule(&mut random, number)).collect();
        let placed = rules.iter().zip(0..);
        let placed: Vec<_> = placed
            .map(|((rule, interfaces), index)| Placed { interfaces, ..Placed::new(rule, index) })
            .collect();
        let image = compile(placed.iter().copied()).expect("few rules");
        let mut takers = vec![BTreeSet::new(); rules.len()];
        for flow in &flows {
            let decided = image.decide(&flow_of(&flow.0, flow.1)).map(|decision| decision.rule as usize);
            for (taker, (rule, present)) in takers.iter_mut().zip(&rules) {
                if takes(rule, present, flow) {
                    taker.insert(rules[decided.expect("one takes it")].0.name.to_string());
                }
            }
        }
        let found = shadowed(&placed, &image).expect("few rules");
        for ((rule, present), takers) in rules.iter().zip(takers) {
            let found = found.iter().find(|(one, _)| one.name == rule.name).map(|(_, shadow)| shadow);
            let context = || format!("case {case}: {rule:#?} among {rules:#?}: {found:?}");
            let is_absent = !rule.interfaces.is_empty() && present.is_empty();
            let decides = takers.contains(&rule.name.to_string());
            let kind = match found {
                None => {
                    assert!(decides, "{}", context());
                    "decides"
                }
                Some(Shadow::Absent) => {
                    assert!(is_absent, "{}", context());
                    "absent"
                }
                Some(Shadow::By(by)) => {
                    assert!(!decides && !is_absent, "{}", context());
                    let by: BTreeSet<_> = by.iter().map(|one| one.name.to_string()).collect();
                    assert_eq!(by, takers, "{}", context());
                    if by.len() == 1 { "by one" } else { "by several" }
                }
                Some(Shadow::Unknown) => panic!("{}", context()),
            };
            *seen.entry(kind).or_default() += 1;
        }
    }
    println!("{seen:?}");
    for kind in ["decides", "absent", "by one", "by several"] {
        assert!(seen.get(kind).is_some_and(|count| *count > 5), "{seen:?}");
    }
}

#[test]
fn what_would_take_too_long_is_not_told() {
    let named = |name: &str, spec: Value| -> Rule {
        let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
        spec.validate().expect("a good rule");
        spec.named(name.parse().expect("a name"))
    };
    let mut rules = vec![
        named("all", json!({ "match": ["tcp:*"], "priority": 1, "to": ["pass"] })),
        named("never", json!({ "match": ["tcp:*"], "priority": -1, "to": ["pass"] })),
    ];
    for number in 0..40 {
        let matches: Vec<_> =
            (0..4).map(|one| format!("tcp:10.{number}.{one}.0/24:{}", 1 + number)).collect();
        let from: Vec<_> = (0..40).map(|one| format!("10.{number}.{one}.0/24")).collect();
        rules.push(named(
            &format!("r{number}"),
            json!({ "match": matches, "from": from, "priority": 2, "to": ["pass"] }),
        ));
    }
    let placed: Vec<_> = rules.iter().zip(0..).map(|(rule, index)| Placed::new(rule, index)).collect();
    let image = compile(placed.iter().copied()).expect("few rules");
    let found = shadowed(&placed, &image).expect("few rules");
    assert!(matches!(&found[..], [(rule, Shadow::Unknown)] if rule.name.as_str() == "never"), "{found:?}");
}

#[test]
fn the_command_lists_them_and_those_that_take_their_packets() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let target = world.target();
    world.attach(&format!("--name low --match tcp:80 --priority -1 --to {}", proxy.destination()));
    let say = || world.cli().run(&["explain", &target, "--shadowed"]).success().stdout;
    assert_eq!(say(), "each of 1 rules can decide about something\n");
    world.attach("--name v4 --match tcp:0.0.0.0/0:* --to pass");
    assert_eq!(say(), "each of 2 rules can decide about something\n");
    world.attach("--name v6 --match tcp:[::/0]:80 --to pass");
    assert_eq!(say(), "low: never, because of v4, v6\n");
    let document = world.cli().json(&["explain", &target, "--shadowed"]);
    let expected = json!([{ "rule": "low", "why": "rules", "by": ["v4", "v6"] }]);
    assert_eq!((&document["shadowed"], &document["rules"]), (&expected, &json!(3)), "{document:#}");
    if Feature::IngressIfindex.is_here() {
        world.net.pod.ip("link add eth1 type veth peer name eth2\nlink set eth1 up");
        world.attach("--name other --match tcp:90 --interface eth1 --to reject --priority 5");
        world.net.pod.ip("link delete eth1");
        world.eventually("it is gone", "/rules/1/interfaces_missing", |missing| !missing.is_null());
        redirector_tests::eventually::eventually("it is published", crate::SECOND * 2, || {
            let said = say();
            if said.contains("other: never, while none of its interfaces is there\n") {
                Ok(())
            } else {
                Err(said)
            }
        });
    }
}
