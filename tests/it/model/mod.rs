//! The kernel program against the rule in user space, by `BPF_PROG_TEST_RUN`: tables here, generated cases beside.

pub(crate) mod generated;
mod programs;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::Arc,
};

use redirector::{
    config::{Rule, RuleSpec},
    kernel::{BypassError, Ingress, Instance, RuleSet, flow},
    matcher::{Placed, compile},
};
use redirector_ebpf::{
    CONSUMER_BLACK_HOLE, CONSUMER_RELAY, Counters, FAMILY_IPV4, FAMILY_IPV6, FLAG_DOWN, Flow, MAX_BYPASS,
    PROTOCOL_TCP, PROTOCOL_UDP, Unavailable, slot,
};
use redirector_tests::{
    eventually::eventually,
    features::Version,
    mixed_rules::MixedRules,
    needs,
    netns::Netns,
    server::listen,
    topology::{CLIENT_V4, CLIENT_V6, POD_V4, POD_V6, at},
};
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// The relay's rules, each with whether it is down.
fn placed(rules: &[(Rule, bool)]) -> impl Iterator<Item = Placed<'_>> {
    rules.iter().zip(0..).map(|((rule, down), index)| {
        let flags = if *down { FLAG_DOWN } else { 0 };
        Placed { flags, ..Placed::new(rule, index) }
    })
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The kernel's own lookup goes on.
    Pass,
    /// RST.
    Drop,
    /// To the socket with this cookie.
    Steer(u64),
}

/// The program, and a listener for each family.
struct Bench {
    instance: Instance,
    listeners: [Socket; 2],
    /// Where `drop` leads to, TCP and UDP.
    black_hole: [[Socket; 2]; 2],
    _netns: Netns,
}

impl Bench {
    fn new() -> Self {
        Self::with(128, Ingress::Read)
    }

    /// For so many rules.
    fn with(rules: u32, ingress: Ingress) -> Self {
        let netns = Netns::new();
        netns.ip("link set lo up");
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let pair = || loopback.map(|address| listen(at(address, 0)));
        let udp = || loopback.map(|address| bound_udp(at(address, 0)));
        let (listeners, black_hole) = netns.enter(|| (pair(), [pair(), udp()]));
        let bench = Self {
            instance: Instance::load_with(&Arc::default(), &RuleSet::default(), rules, ingress)
                .expect("load the program"),
            listeners,
            black_hole,
            _netns: netns,
        };
        bench.fill();
        for (sockets, protocol) in bench.black_hole.iter().zip([PROTOCOL_TCP, PROTOCOL_UDP]) {
            for (socket, family) in sockets.iter().zip([FAMILY_IPV4, FAMILY_IPV6]) {
                let slot = slot(CONSUMER_BLACK_HOLE, protocol, family);
                bench.instance.set_listener(slot, socket.as_fd()).expect("fill a slot");
            }
        }
        bench
    }

    fn fill(&self) {
        for (listener, family) in self.listeners.iter().zip([FAMILY_IPV4, FAMILY_IPV6]) {
            self.set(family, listener);
        }
    }

    #[track_caller]
    fn set(&self, family: u32, socket: &Socket) {
        self.instance
            .set_listener(slot(CONSUMER_RELAY, PROTOCOL_TCP, family), socket.as_fd())
            .expect("fill a slot");
    }

    #[track_caller]
    fn publish(&self, rules: &[(Rule, bool)]) {
        self.instance.publish(&compile(placed(rules)).expect("few rules").into(), 0).expect("publish");
    }

    /// What the kernel does.
    #[track_caller]
    fn run(&self, flow: &Flow) -> Verdict {
        let result = self.instance.test_run(flow, 1).expect("BPF_PROG_TEST_RUN");
        match (result.verdict, result.cookie) {
            (0, 0) => Verdict::Drop,
            (1, 0) => Verdict::Pass,
            (1, cookie) => Verdict::Steer(cookie),
            _ => panic!("{result:?}"),
        }
    }

    /// To our listener of the family.
    fn steered(&self, to: SocketAddr) -> Verdict {
        Verdict::Steer(self.listeners[usize::from(to.is_ipv6())].cookie().expect("SO_COOKIE"))
    }

    /// To the socket of protocol and family that takes nothing.
    fn dropped(&self, protocol: u32, to: SocketAddr) -> Verdict {
        let sockets = &self.black_hole[usize::from(protocol == PROTOCOL_UDP)];
        Verdict::Steer(sockets[usize::from(to.is_ipv6())].cookie().expect("SO_COOKIE"))
    }

    fn counters(&self, rule: u32) -> Counters {
        self.instance.counters.rule(rule).expect("read counters")
    }
}

fn bound_udp(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None).expect("socket");
    socket.bind(&address.into()).expect("bind");
    socket
}

/// A rule as a user writes it.
#[track_caller]
fn rule(name: &str, matches: &[&str], to: &str, on_unavailable: &str) -> Rule {
    rule_of(name, json!({ "match": matches, "to": [to], "on_unavailable": on_unavailable }))
}

/// A rule as the API takes it.
#[track_caller]
fn rule_of(name: &str, spec: serde_json::Value) -> Rule {
    let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
    spec.named(name.parse().expect("a name"))
}

const CLIENT: SocketAddr = SocketAddr::new(CLIENT_V4, 40_000);

#[test]
fn each_action_does_what_it_says_and_counts_itself() {
    needs!(TestRun);
    let bench = Bench::new();
    let rules = [
        (rule("steer", &["tcp:80"], "127.0.0.1:1", "reject"), false),
        (rule("original", &["tcp:81"], "original", "reject"), false),
        (rule("unix", &["tcp:82"], "unix:/x", "reject"), false),
        (rule("reject", &["tcp:83"], "reject", "reject"), false),
        (rule("pass", &["tcp:84"], "pass", "reject"), false),
        (rule("down", &["tcp:85"], "127.0.0.1:1", "reject"), true),
        (rule("down-pass", &["tcp:86"], "127.0.0.1:1", "pass"), true),
        (rule("drop", &["tcp:88"], "drop", "reject"), false),
        (rule("down-drop", &["tcp:89"], "127.0.0.1:1", "drop"), true),
    ];
    for (pod, client) in [(POD_V4, CLIENT_V4), (POD_V6, CLIENT_V6)] {
        let ask = |port| bench.run(&flow(at(client, 40_000), at(pod, port)));
        assert_eq!(ask(80), Verdict::Pass, "before there are rules");
    }
    assert_eq!(bench.instance.counters.netns().unwrap().passed, 2);
    bench.publish(&rules);
    for (pod, client) in [(POD_V4, CLIENT_V4), (POD_V6, CLIENT_V6)] {
        let ask = |port| bench.run(&flow(at(client, 40_000), at(pod, port)));
        let steered = bench.steered(at(pod, 0));
        let expected = [
            (80, steered),
            (81, steered),
            (82, steered),
            (83, Verdict::Drop),
            (84, Verdict::Pass),
            (85, Verdict::Drop),
            (86, Verdict::Pass),
            (87, Verdict::Pass),
            (88, bench.dropped(PROTOCOL_TCP, at(pod, 0))),
            (89, bench.dropped(PROTOCOL_TCP, at(pod, 0))),
        ];
        for (port, verdict) in expected {
            assert_eq!(ask(port), verdict, "{pod} port {port}");
        }
    }
    for index in 0..3 {
        assert_eq!(bench.counters(index), Counters { steered: 2, ..Counters::default() });
    }
    assert_eq!(bench.counters(3), Counters { rejected: 2, ..Counters::default() });
    assert_eq!(bench.counters(4), Counters { passed: 2, ..Counters::default() });
    assert_eq!(bench.counters(7), Counters { dropped: 2, ..Counters::default() });
    for index in [5, 6, 8] {
        let mut expected = Counters::default();
        expected.unavailable[Unavailable::RuleDown as usize] = 2;
        assert_eq!(bench.counters(index), expected);
    }
    assert_eq!(bench.instance.counters.netns().unwrap().passed, 4);
}

#[test]
fn a_protocol_that_no_match_names_is_left_alone() {
    needs!(TestRun);
    /// UDP-Lite, for which Linux before 6.19 asks as well.
    const IPPROTO_UDPLITE: u32 = 136;
    let bench = Bench::new();
    for (matching, tcp, udp) in [
        ("tcp:*", Verdict::Drop, Verdict::Pass),
        ("udp:*", Verdict::Pass, Verdict::Drop),
        ("any:*", Verdict::Drop, Verdict::Drop),
    ] {
        bench.publish(&[(rule("all", &[matching], "reject", "reject"), false)]);
        for (client, pod) in [(CLIENT_V4, POD_V4), (CLIENT_V6, POD_V6)] {
            let flow = flow(at(client, 40_000), at(pod, 80));
            assert_eq!(bench.run(&flow), tcp, "{matching}");
            assert_eq!(bench.run(&Flow { protocol: PROTOCOL_UDP, ..flow }), udp, "{matching}");
            assert_eq!(bench.run(&Flow { protocol: IPPROTO_UDPLITE, ..flow }), Verdict::Pass, "{matching}");
        }
    }
    assert_eq!(bench.counters(0).rejected, 8);
    assert_eq!(bench.instance.counters.netns().unwrap().passed, 2, "of TCP only");
}

#[test]
fn udp_that_is_dropped_goes_to_a_socket_of_udp() {
    needs!(TestRun);
    let bench = Bench::new();
    bench.publish(&[(rule("all", &["any:53"], "drop", "reject"), false)]);
    for (client, pod) in [(CLIENT_V4, POD_V4), (CLIENT_V6, POD_V6)] {
        let to = at(pod, 53);
        let flow = flow(at(client, 40_000), to);
        for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
            assert_eq!(bench.run(&Flow { protocol, ..flow }), bench.dropped(protocol, to), "{protocol} {to}");
        }
    }
    assert_eq!(bench.counters(0).dropped, 4);
}

#[test]
fn a_program_knows_the_interface_that_it_is_given() {
    needs!(TestRun);
    let rules = [
        (rule("any", &["tcp:80,82"], "reject", "reject"), false),
        (
            rule_of("named", json!({ "match": ["tcp:80-81"], "interface": ["eth9"], "to": ["127.0.0.1:1"] })),
            false,
        ),
    ];
    for (given, port_80, port_81) in [(9, "named", "named"), (8, "any", "none"), (0, "any", "none")] {
        let bench = Bench::with(16, Ingress::Given(given));
        let with_interface =
            placed(&rules).map(|one| Placed { interfaces: if one.index == 1 { &[9] } else { &[] }, ..one });
        let rule_set: RuleSet = compile(with_interface).expect("few rules").into();
        bench.instance.publish(&rule_set, 0).expect("publish");
        for (port, expected) in [(80, port_80), (81, port_81)] {
            let to = at(POD_V4, port);
            let verdict = match expected {
                "named" => bench.steered(to),
                "any" => Verdict::Drop,
                _ => Verdict::Pass,
            };
            assert_eq!(bench.run(&flow(CLIENT, to)), verdict, "port {port} by {given}");
            let asked = Flow { ingress_ifindex: given, ..flow(CLIENT, to) };
            let decided =
                rule_set.image.decide(&asked).map(|decision| rules[decision.rule as usize].0.name.as_str());
            assert_eq!(decided.unwrap_or("none"), expected, "port {port} by {given}");
        }
    }
}

#[test]
fn a_slot_without_a_usable_socket_is_decided_by_on_unavailable_and_counted_by_errno() {
    needs!(TestRun);
    let bench = Bench::new();
    bench.publish(&[
        (rule("reject", &["tcp:80"], "original", "reject"), false),
        (rule("pass", &["tcp:81"], "original", "pass"), false),
    ]);
    let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
    udp.bind(&at([127, 0, 0, 1].into(), 0).into()).unwrap();
    let dead = listen(at([127, 0, 0, 1].into(), 0));
    let mut expected = BTreeMap::from([(Unavailable::EmptySlot as usize, 0_u64)]);
    let check = |reason: Unavailable, expected: &mut BTreeMap<usize, u64>| {
        *expected.entry(reason as usize).or_default() += 1;
        assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, 80))), Verdict::Drop, "{reason:?}");
        assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, 81))), Verdict::Pass, "{reason:?}");
        for index in 0..2 {
            let counters = bench.counters(index);
            for (reason, count) in &*expected {
                assert_eq!(counters.unavailable[*reason], *count, "reason {reason}: {counters:?}");
            }
            assert_eq!(counters.steered, 0);
        }
    };
    bench.set(FAMILY_IPV4, &bench.listeners[1]);
    check(Unavailable::WrongFamily, &mut expected);
    bench.set(FAMILY_IPV4, &udp);
    check(Unavailable::WrongProtocol, &mut expected);
    bench.set(FAMILY_IPV4, &dead);
    dead.shutdown(std::net::Shutdown::Both).unwrap();
    check(Unavailable::NotListening, &mut expected);
    // The kernel empties the slot of a socket that is closed. Programs that other tests start have it too, between
    // fork and exec.
    drop(dead);
    eventually("the slot is empty", crate::SECOND, || {
        match bench
            .instance
            .listener_cookie(slot(CONSUMER_RELAY, PROTOCOL_TCP, FAMILY_IPV4))
            .expect("ask for the slot")
        {
            None => Ok(()),
            some => Err(some),
        }
    });
    check(Unavailable::EmptySlot, &mut expected);
    bench.fill();
    assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, 80))), bench.steered(CLIENT));
}

#[test]
fn without_a_black_hole_nobody_gets_in_and_it_is_counted() {
    needs!(TestRun);
    let bench = Bench::new();
    bench.publish(&[
        (rule("drop", &["tcp:80"], "drop", "reject"), false),
        (rule("down", &["tcp:81"], "original", "drop"), true),
    ]);
    bench.instance.clear_listener(slot(CONSUMER_BLACK_HOLE, PROTOCOL_TCP, FAMILY_IPV4));
    for port in [80, 81] {
        assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, port))), Verdict::Drop, "port {port}");
    }
    let counters = bench.counters(0);
    assert_eq!((counters.dropped, counters.unavailable[Unavailable::EmptySlot as usize]), (0, 1));
    let counters = bench.counters(1);
    assert_eq!(counters.unavailable[Unavailable::RuleDown as usize], 1);
}

#[test]
fn only_our_own_connections_to_their_own_address_are_bypassed() {
    needs!(TestRun);
    let bench = Bench::new();
    bench.publish(&[
        (rule("steer", &["tcp:*"], "original", "reject"), false),
        (rule("reject", &["tcp:81"], "reject", "reject"), false),
    ]);
    for pod in [POD_V4, POD_V6] {
        let own = at(pod, 50_000);
        let (steered, to) = (bench.steered(own), at(pod, 80));
        assert_eq!(bench.run(&flow(own, to)), steered, "before it is entered");
        let guard = bench.instance.bypass.enter(own, to.port()).unwrap();
        assert_eq!(bench.run(&flow(own, to)), Verdict::Pass);
        assert_eq!(bench.run(&flow(own, at(pod, 81))), Verdict::Drop, "another port of the same address");
        assert_eq!(bench.run(&flow(own, at(pod, 82))), steered, "another port of the same address");
        let rejected = bench.instance.bypass.enter(own, 81).unwrap();
        assert_eq!(
            bench.run(&flow(own, at(pod, 81))),
            Verdict::Pass,
            "past `reject` too: it was decided before"
        );
        drop(rejected);
        assert_eq!(bench.run(&flow(at(pod, 50_001), to)), steered, "another port");
        let other = if pod.is_ipv4() { IpAddr::from([10, 77, 0, 9]) } else { "fd77::9".parse().unwrap() };
        assert_eq!(bench.run(&flow(at(other, 50_000), to)), steered, "another client");
        assert_eq!(bench.run(&flow(own, at(other, 80))), steered, "another destination");
        drop(guard);
        assert_eq!(bench.run(&flow(own, to)), steered, "after it was closed");
    }
    // An IPv4 address is not the IPv6 address that begins like it.
    let _guard = bench.instance.bypass.enter(at([253, 119, 0, 0].into(), 50_000), 80).unwrap();
    let six = at("fd77::".parse().unwrap(), 50_000);
    assert_eq!(bench.run(&flow(six, at(six.ip(), 80))), bench.steered(six));
}

#[test]
fn one_namespace_cannot_have_all_bypass_entries() {
    let shared = Arc::default();
    let [greedy, modest] = [(); 2].map(|()| {
        Instance::load_with(&shared, &RuleSet::default(), 1, Ingress::Read).expect("load the program")
    });
    let entered: Vec<_> = (0..=u16::MAX)
        .map_while(|port| match greedy.bypass.enter(at(POD_V4, port), 80) {
            Ok(guard) => Some(guard),
            Err(error) => {
                assert!(matches!(error, BypassError::Full), "{error}");
                None
            }
        })
        .collect();
    assert_eq!(entered.len(), MAX_BYPASS / 4);
    let others: Vec<_> =
        (0..1000).map(|port| modest.bypass.enter(at(POD_V4, port), 80).expect("a share")).collect();
    drop((entered, others));
    drop(greedy.bypass.enter(at(POD_V4, 1), 80).expect("room again"));
}

#[test]
fn every_port_of_many_rules_is_told_from_those_beside_it() {
    needs!(TestRun);
    let bench = Bench::new();
    let ports =
        |rule: usize| (0..32).map(|item| (1000 * (rule + 1) + 2 * item).to_string()).collect::<Vec<_>>();
    let rules: Vec<_> = (0..32)
        .map(|number| {
            let matching = format!("tcp:{}", ports(number).join(","));
            (rule(&format!("rule{number}"), &[&matching], "original", "reject"), false)
        })
        .collect();
    bench.publish(&rules);
    for number in 0..rules.len() {
        for port in ports(number) {
            let to = at(POD_V4, port.parse().unwrap());
            assert_eq!(bench.run(&flow(CLIENT, to)), bench.steered(to), "{to}");
            let beside = at(POD_V4, to.port() + 1);
            assert_eq!(bench.run(&flow(CLIENT, beside)), Verdict::Pass, "{beside}");
        }
    }
}

#[test]
fn rule_sets_of_every_size_decide_and_replace_each_other() {
    needs!(TestRun);
    let bench = Bench::with(5_000, Ingress::Read);
    let sets = [1, 100, 5_000].map(|count| {
        let mixed = MixedRules::new(3, count);
        let rules: Vec<_> = mixed.rules.into_iter().map(|rule| (rule, false)).collect();
        (RuleSet::from(compile(placed(&rules)).expect("few rules")), mixed.hits)
    });
    let [small, medium, large] = &sets;
    assert!(small.0.image.size() < medium.0.image.size() && medium.0.image.size() < large.0.image.size());
    let elsewhere: Vec<_> = large.1.iter().copied().map(MixedRules::to_unnamed_port).collect();
    // Each after each.
    for (rule_set, hits) in [small, medium, large, small, large, medium, small] {
        let image = &rule_set.image;
        bench.instance.publish(rule_set, 0).expect("publish");
        for (from, to) in hits.iter().take(200) {
            assert_eq!(bench.run(&flow(*from, *to)), bench.steered(*to), "{from} to {to} of {image:?}");
        }
        for (from, to) in large.1.iter().take(200) {
            let flow = flow(*from, *to);
            let wanted = if image.decide(&flow).is_some() { bench.steered(*to) } else { Verdict::Pass };
            assert_eq!(bench.run(&flow), wanted, "{from} to {to} of {image:?}");
        }
        for (from, to) in elsewhere.iter().take(100) {
            assert_eq!(bench.run(&flow(*from, *to)), Verdict::Pass, "{from} to {to} of {image:?}");
        }
    }
}

#[test]
fn a_rule_set_is_replaced_as_a_whole() {
    needs!(TestRun);
    let bench = Bench::new();
    bench.publish(&[(rule("one", &["tcp:80"], "reject", "reject"), false)]);
    assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, 80))), Verdict::Drop);
    bench.publish(&[(rule("two", &["tcp:81"], "reject", "reject"), false)]);
    assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, 80))), Verdict::Pass);
    assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, 81))), Verdict::Drop);
    bench.publish(&[]);
    assert_eq!(bench.run(&flow(CLIENT, at(POD_V4, 81))), Verdict::Pass);
}
