//! Generated rules and packets. Three answers are compared: the kernel's, that of the compiled rule set in user
//! space, and that of a model that looks at the rules as users write them and knows nothing of cells.
//!
//! What a counter-example was shrunk to is kept in `counter-examples.txt` beside this file, and tried first.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use redirector::{
    config::{Destination, Match, OnUnavailable, Protocol, Rule},
    kernel::{Ingress, RuleSet},
    matcher::{Placed, compile},
};
use redirector_ebpf::{Flow, PROTOCOL_TCP, PROTOCOL_UDP};
use redirector_tests::{needs, scale, topology::at};
use serde_json::json;

use super::{Bench, Verdict, flow, placed, rule_of};

const FLOWS: usize = 100;

/// Addresses that are near one another, so that prefixes overlap, and those at the ends.
const ADDRESSES: [&str; 14] = [
    "0.0.0.0",
    "10.77.0.1",
    "10.77.0.2",
    "10.77.1.1",
    "10.0.0.0",
    "127.0.0.1",
    "255.255.255.255",
    "::",
    "fd77::1",
    "fd77::2",
    "fd77:0:0:1::1",
    "fd00::",
    "::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];

const PORTS: [u16; 10] = [1, 79, 80, 81, 90, 443, 8080, 32_768, 65_534, 65_535];

/// Interfaces that rules name, with their indices; the last one is not there.
const INTERFACES: [(&str, u32); 3] = [("eth0", 11), ("eth1", 12), ("gone", 0)];

/// By which interface packets come: none that is known, two that rules name, one that they do not.
pub(crate) const INGRESS: [u32; 4] = [0, 11, 12, 13];

/// Indices of the interfaces that a rule names and that are there.
pub(crate) fn present(rule: &Rule) -> Vec<u32> {
    let index = |name: &str| INTERFACES.iter().find(|(one, _)| *one == name).map(|(_, index)| *index);
    rule.interfaces.iter().filter_map(|one| index(one.as_str())).filter(|index| *index != 0).collect()
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        4 => select(&ADDRESSES[..]).prop_map(|text| text.parse().expect("an address")),
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        1 => any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
        // The address that an IPv4 client has for an IPv6 socket; here it is an IPv6 one like any other.
        1 => any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).to_ipv6_mapped().into()),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    let length = prop_oneof![Just(0), Just(u8::MAX), (u8::MAX - 6)..u8::MAX, 0..=u8::MAX];
    (address(), length).prop_map(|(address, length)| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        // From the longest on down, or anything.
        let length = if length >= u8::MAX - 6 { bits - (u8::MAX - length) } else { length % (bits + 1) };
        IpNet::new(address, length).expect("a length of its family").trunc()
    })
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![4 => select(&PORTS[..]), 1 => 1..=u16::MAX]
}

fn ports() -> impl Strategy<Value = String> {
    let range = (port(), port()).prop_map(|(one, two)| format!("{}-{}", one.min(two), one.max(two)));
    let item = prop_oneof![2 => port().prop_map(|port| port.to_string()), 1 => range];
    prop_oneof![1 => Just("*".to_owned()), 4 => vec(item, 1..4).prop_map(|items| items.join(","))]
}

fn matching() -> impl Strategy<Value = Match> {
    let protocol = prop_oneof![4 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp), 2 => Just(Protocol::Any)];
    (protocol, prop::option::weighted(0.7, net()), ports()).prop_map(|(protocol, prefix, ports)| {
        // What users cannot write, because it would be something else, is no rule either.
        let prefix = prefix.filter(|net| match net {
            IpNet::V4(_) => true,
            IpNet::V6(net) => net.addr().to_ipv4_mapped().is_none(),
        });
        Match { protocol, prefix, ports: ports.parse().expect("ports") }
    })
}

/// A rule, without its name, and whether it is down.
#[derive(Clone, Debug)]
pub(crate) struct Specification {
    matches: Vec<Match>,
    from: Vec<IpNet>,
    except: Vec<Match>,
    interfaces: Vec<&'static str>,
    priority: i32,
    to: &'static str,
    on_unavailable: &'static str,
    down: bool,
}

pub(crate) fn specification() -> impl Strategy<Value = Specification> {
    let except = prop_oneof![4 => Just(Vec::new()), 1 => vec(matching(), 1..3)];
    let from = prop_oneof![3 => Just(Vec::new()), 2 => vec(net(), 1..4)];
    let interfaces = prop_oneof![
        4 => Just(Vec::new()),
        1 => prop::sample::subsequence(&INTERFACES[..], 1..=INTERFACES.len()).prop_map(|some| some.into_iter().map(|(name, _)| name).collect()),
    ];
    let priority = prop_oneof![6 => Just(0), 1 => select(&[i32::MIN, -1, 1, i32::MAX][..])];
    let to = select(&["original", "127.0.0.1:1", "unix:/x", "pass", "reject", "drop"][..]);
    let down = prop::bool::weighted(0.1);
    (
        vec(matching(), 1..4),
        from,
        except,
        interfaces,
        priority,
        to,
        select(&["pass", "reject", "drop"][..]),
        down,
    )
        .prop_map(|(matches, from, except, interfaces, priority, to, on_unavailable, down)| {
            Specification {
                from,
                except,
                interfaces,
                priority,
                // Where UDP can go.
                to: match to {
                    "original" if takes_udp(&matches) => "pass",
                    "127.0.0.1:1" if takes_udp(&matches) => "reject",
                    "unix:/x" if takes_udp(&matches) => "drop",
                    _ => to,
                },
                matches,
                on_unavailable,
                down,
            }
        })
}

fn takes_udp(matches: &[Match]) -> bool {
    matches.iter().any(|one| one.protocol != Protocol::Tcp)
}

impl Specification {
    pub(crate) fn rule(&self, number: usize) -> (Rule, bool) {
        // In no order of names.
        let name = format!("{:03}", number * 7919 % 1000);
        let Self { matches, from, except, interfaces, priority, to, on_unavailable, down } = self;
        let from: Vec<_> =
            from.iter().map(ToString::to_string).filter(|text| !text.contains("::ffff:")).collect();
        let rule = rule_of(
            &name,
            json!({
                "match": matches, "from": from, "except": except, "interface": interfaces, "priority": priority,
                "to": [to], "on_unavailable": on_unavailable,
            }),
        );
        (rule, *down)
    }
}

/// How a packet comes from the rules: half of them are at the edge of one.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    rule: Option<Index>,
    part: Index,
    edges: [Edge; 3],
    pub(crate) protocol: u32,
    client: IpAddr,
    destination: IpAddr,
    port: u16,
    itself: bool,
    bypassed: bool,
}

#[derive(Clone, Copy, Debug)]
enum Edge {
    First,
    Last,
    Before,
    Behind,
}

pub(crate) fn packet() -> impl Strategy<Value = Packet> {
    let edge = || select(&[Edge::First, Edge::Last, Edge::Before, Edge::Behind][..]);
    let rule = prop::option::of(any::<Index>());
    let edges = [edge(), edge(), edge()];
    let ends = (address(), address(), port(), prop::bool::weighted(0.2), any::<bool>());
    let protocol = prop_oneof![2 => Just(PROTOCOL_TCP), 1 => Just(PROTOCOL_UDP)];
    let whole = (rule, any::<Index>(), edges, protocol, ends);
    whole.prop_map(|(rule, part, edges, protocol, (client, destination, port, itself, bypassed))| Packet {
        rule,
        part,
        edges,
        protocol,
        client,
        destination,
        port,
        itself,
        bypassed,
    })
}

/// An address at an edge of a network; none beyond the ends of the family.
fn at_edge(net: IpNet, edge: Edge) -> IpAddr {
    match net {
        IpNet::V4(net) => Ipv4Addr::from_bits(match edge {
            Edge::First => net.network().to_bits(),
            Edge::Last => net.broadcast().to_bits(),
            Edge::Before => net.network().to_bits().saturating_sub(1),
            Edge::Behind => net.broadcast().to_bits().saturating_add(1),
        })
        .into(),
        IpNet::V6(net) => Ipv6Addr::from_bits(match edge {
            Edge::First => net.network().to_bits(),
            Edge::Last => net.broadcast().to_bits(),
            Edge::Before => net.network().to_bits().saturating_sub(1),
            Edge::Behind => net.broadcast().to_bits().saturating_add(1),
        })
        .into(),
    }
}

impl Packet {
    /// Client and original destination.
    pub(crate) fn ends(&self, rules: &[(Rule, bool)]) -> (SocketAddr, SocketAddr) {
        let [at_address, at_port, at_source] = self.edges;
        let (mut client, mut destination, mut port) = (self.client, self.destination, self.port);
        if let Some(index) = &self.rule {
            let rule = &index.get(rules).0;
            let parts: Vec<_> = rule.matches.iter().chain(&rule.except).collect();
            let part = self.part.get(&parts);
            destination = part.prefix.map_or(destination, |net| at_edge(net, at_address));
            let (first, last) = *self.part.get(part.ports.ranges());
            port = match at_port {
                Edge::First => first,
                Edge::Last => last,
                Edge::Before => first.saturating_sub(1),
                Edge::Behind => last.saturating_add(1),
            };
            if !rule.from.is_empty() {
                client = at_edge(self.part.get(&rule.from).0, at_source);
            }
        }
        // A packet is of one family.
        if self.itself || client.is_ipv4() != destination.is_ipv4() {
            client = destination;
        }
        (at(client, 50_000), at(destination, port))
    }
}

/// Which rule decides, of rules and not of cells.
fn model(
    rules: &[(Rule, bool)],
    (protocol, ingress): (u32, u32),
    client: IpAddr,
    to: SocketAddr,
) -> Option<usize> {
    let mut taking = Vec::new();
    for (index, (rule, _)) in rules.iter().enumerate() {
        if rule.except.iter().any(|except| except.contains(protocol, to)) {
            continue;
        }
        let sources =
            rule.from.iter().filter(|source| source.contains(client)).map(|source| source.0.prefix_len());
        let source = if rule.from.is_empty() { Some(0) } else { sources.max() };
        let Some(source) = source else { continue };
        let is_named = !rule.interfaces.is_empty();
        if is_named && !present(rule).contains(&ingress) {
            continue;
        }
        for one in rule.matches.iter().filter(|one| one.contains(protocol, to)) {
            let length = one.prefix.map_or(0, |prefix| prefix.prefix_len());
            let (priority, is_any) = (Reverse(rule.priority), one.protocol == Protocol::Any);
            let order =
                (priority, is_any, Reverse(length), one.ports.len(), Reverse(source), Reverse(is_named));
            taking.push((order, rule.name.as_str(), index));
        }
    }
    taking.into_iter().min().map(|(_, _, index)| index)
}

/// What is expected of a packet that this rule decides.
fn expected(
    bench: &Bench,
    (rule, down): &(Rule, bool),
    (protocol, to): (u32, SocketAddr),
    bypassed: bool,
) -> Verdict {
    match rule.to {
        Destination::Pass => Verdict::Pass,
        _ if bypassed => Verdict::Pass,
        Destination::Reject => Verdict::Drop,
        Destination::Drop => bench.dropped(protocol, to),
        _ if !down => bench.steered(to),
        _ => match rule.on_unavailable {
            OnUnavailable::Pass => Verdict::Pass,
            OnUnavailable::Reject => Verdict::Drop,
            OnUnavailable::Drop => bench.dropped(protocol, to),
        },
    }
}

#[test]
fn kernel_and_user_space_agree_with_the_model_about_generated_rules() {
    needs!(TestRun);
    let rules = prop_oneof![
        5 => vec(specification(), 1..8),
        4 => vec(specification(), 8..50),
        1 => vec(specification(), 50..=500),
    ];
    // For each interface a program that knows no other.
    let benches = INGRESS.map(|index| Bench::with(500, Ingress::Given(index)));
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/it/model/counter-examples.txt");
    let config = Config {
        cases: scale::cases(),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(corpus))),
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(
        &(rules, vec(packet(), FLOWS), 0..INGRESS.len()),
        |(specifications, packets, by)| {
            let (bench, ingress_ifindex) = (&benches[by], INGRESS[by]);
            let rules: Vec<_> =
                specifications.iter().enumerate().map(|(number, one)| one.rule(number)).collect();
            let interfaces: Vec<_> = rules.iter().map(|(rule, _)| present(rule)).collect();
            let with_interfaces =
                placed(&rules).zip(&interfaces).map(|(one, interfaces)| Placed { interfaces, ..one });
            let rule_set = RuleSet::from(compile(with_interfaces).expect("few rules"));
            bench.instance.publish(&rule_set, 0).expect("publish");
            for packet in packets {
                let (from, to) = packet.ends(&rules);
                let protocol = packet.protocol;
                let bypassed = from.ip() == to.ip() && protocol == PROTOCOL_TCP && packet.bypassed;
                let guard = bypassed.then(|| bench.instance.bypass.enter(from, to.port()).expect("room"));
                let flow = Flow { protocol, ingress_ifindex, ..flow(from, to) };
                let decides = model(&rules, (protocol, ingress_ifindex), from.ip(), to);
                let in_user_space = rule_set.image.decide(&flow).map(|decision| decision.rule as usize);
                prop_assert_eq!(in_user_space, decides, "user space; {:?}", flow);
                let wanted = decides.map_or(Verdict::Pass, |index| {
                    expected(bench, &rules[index], (protocol, to), guard.is_some())
                });
                prop_assert_eq!(bench.run(&flow), wanted, "the kernel; {:?}", flow);
                let kind = match (decides, wanted) {
                    (None, _) => "unmatched",
                    (_, Verdict::Pass) => "pass",
                    (_, Verdict::Drop) => "drop",
                    (_, Verdict::Steer(_)) => "steer",
                };
                *seen.borrow_mut().entry(kind).or_default() += 1;
            }
            Ok(())
        },
    );
    let seen = seen.into_inner();
    println!("{seen:?}");
    outcome.unwrap_or_else(|error| panic!("{error}"));
    // A generator that gives one thing only proves little.
    for kind in ["unmatched", "pass", "drop", "steer"] {
        assert!(seen[kind] > scale::cases() * 5, "{seen:?}");
    }
}
