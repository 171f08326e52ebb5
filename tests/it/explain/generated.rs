//! Rules and flows in a small world: a pod with two devices, and a client behind both of them.

use std::net::{IpAddr, SocketAddr};

use redirector::config::{Match, PortSet, RuleSpec};
use redirector_ebpf::{PROTOCOL_TCP, PROTOCOL_UDP};
use redirector_tests::{features::Feature, pattern::Random};
use serde_json::{Value, json};

/// Servers that rules can lead to.
pub(super) const SERVERS: usize = 6;

/// Ports on which an application listens, TCP and UDP.
pub(super) const APPLICATIONS: [u16; 2] = [80, 82];

/// Whose port it is that shows that what was sent before has arrived.
pub(super) const MARKER: u16 = 7;

/// A rule as it is attached.
pub(super) struct Generated {
    pub(super) spec: Value,
    /// Its destination is in a namespace that is gone by the time that anybody comes.
    pub(super) is_down: bool,
}

/// Rules, the one of the marker apart.
pub(super) fn rules(random: &mut Random, servers: &[String]) -> Vec<Generated> {
    (0..2 + random.below(6)).map(|number| rule(random, number, servers)).collect()
}

fn rule(random: &mut Random, number: usize, servers: &[String]) -> Generated {
    loop {
        let matches: Vec<_> = (0..1 + random.below(2)).map(|_| matching(random)).collect();
        let is_tcp = matches.iter().all(|one| one.starts_with("tcp"));
        let except = [
            "tcp:80",
            "udp:82",
            "any:10.77.0.1:81",
            "any:[fd77::/64]:80",
            "tcp:81-82",
            "any:10.77.0.0/30:80",
        ];
        let from = [
            "10.77.0.2",
            "10.77.0.0/30",
            "10.77.0.0/16",
            "10.78.0.0/16",
            "0.0.0.0/0",
            "127.0.0.0/8",
            "fd77::2",
            "fd77::/64",
            "fd78::/16",
            "::/0",
            "::1",
        ];
        let devices = if Feature::IngressIfindex.is_here() { &["eth0", "eth1", "lo"][..] } else { &[] };
        let (to, is_down) = destination(random, is_tcp, servers);
        let mut spec = json!({
            // In no order of names.
            "name": format!("r{}", number * 7 % 10),
            "match": matches,
            "from": some(random, 3, &from),
            "except": some(random, 4, &except),
            "interface": some(random, 4, devices),
            "priority": random.one_of(&[0, 0, 0, 0, 0, 0, 1, -1]),
            "on_unavailable": random.one_of(&["pass", "reject", "drop"]),
        });
        // A name that is there only when it is attached.
        spec["to"] = json!(["pass"]);
        let good: RuleSpec = serde_json::from_value(spec.clone()).expect("a rule");
        if good.validate().is_ok() {
            spec["to"] = json!([to]);
            return Generated { spec, is_down };
        }
    }
}

fn destination(random: &mut Random, is_tcp: bool, servers: &[String]) -> (String, bool) {
    let simple = ["pass", "reject", "drop"];
    match random.below(if is_tcp { 10 } else { 3 }) {
        number @ 0..3 => (simple[number].to_owned(), false),
        3 => ("original".to_owned(), false),
        4 | 5 => (String::new(), true),
        _ => (random.one_of(servers).clone(), false),
    }
}

fn matching(random: &mut Random) -> String {
    let protocol = random.one_of(&["tcp", "tcp", "tcp", "udp", "any"]);
    let prefix = random.one_of(&[
        "",
        "",
        "",
        "10.77.0.1:",
        "10.77.0.0/30:",
        "10.77.0.0/16:",
        "10.0.0.0/8:",
        "10.78.0.0/24:",
        "127.0.0.0/8:",
        "[fd77::1]:",
        "[fd77::/64]:",
        "[fd78::/16]:",
        "[::/0]:",
        "[::1]:",
    ]);
    let ports = random.one_of(&["80", "81", "80-82", "81,83", "*", "82-65535", "1-80", "80,82"]);
    format!("{protocol}:{prefix}{ports}")
}

fn some<'a>(random: &mut Random, one_in: usize, all: &[&'a str]) -> Vec<&'a str> {
    if all.is_empty() || random.below(one_in) > 0 {
        return Vec::new();
    }
    let mut some: Vec<_> = (0..1 + random.below(2)).map(|_| *random.one_of(all)).collect();
    some.dedup();
    some
}

/// Who sends, and what.
pub(super) struct Sent {
    pub(super) is_inside: bool,
    pub(super) is_tcp: bool,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    /// The interface, as it is asked about.
    pub(super) device: Option<&'static str>,
}

impl Sent {
    /// As a flow is written.
    pub(super) fn text(&self) -> String {
        let protocol = if self.is_tcp { "tcp" } else { "udp" };
        let device = self.device.map(|name| format!(" dev {name}")).unwrap_or_default();
        format!("{protocol} {} -> {}{device}", self.source, self.destination)
    }
}

/// From where, to where, and by which device.
const WAYS: [(&[&str], &[&str], Option<&str>); 7] = [
    (&["10.77.0.2", "10.77.0.4"], &["10.77.0.1", "10.77.0.3", "10.77.0.5"], Some("eth0")),
    (&["fd77::2", "fd77::4"], &["fd77::1", "fd77::3"], Some("eth0")),
    (&["10.78.0.2"], &["10.78.0.1"], Some("eth1")),
    (&["fd78::2"], &["fd78::1"], Some("eth1")),
    (&["10.77.0.1", "10.77.0.3", "127.0.0.1"], &["10.77.0.1", "10.77.0.3", "10.78.0.1", "127.0.0.1"], None),
    (&["fd77::1", "fd77::3"], &["fd77::1", "fd77::3", "fd78::1"], None),
    // To another address `::1` connects, but the kernel finds no way for a RST back: it looks for one by the device that has
    // the address (tcp_v6_send_response, net/ipv6/tcp_ipv6.c).
    (&["::1"], &["::1"], None),
];

/// A packet from a port that nobody has had: half of them at an edge of what a rule takes, and most of them to a destination
/// that a rule matches.
pub(super) fn sent(random: &mut Random, rules: &[Generated], source_port: u16) -> Sent {
    let matches: Vec<_> = rules.iter().filter_map(|rule| rule.spec["match"].as_array()).flatten().collect();
    let matches = matches.into_iter().filter_map(Value::as_str);
    let matches: Vec<Match> = matches.map(|one| one.parse().expect("a match")).collect();
    let is_to_match = random.below(4) > 0;
    loop {
        let sent = any_sent(random, rules, source_port);
        let protocol = if sent.is_tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        if !is_to_match || matches.iter().any(|one| one.contains(protocol, sent.destination)) {
            return sent;
        }
    }
}

fn any_sent(random: &mut Random, rules: &[Generated], source_port: u16) -> Sent {
    let (sources, destinations, device) = WAYS[*random.one_of(&[0, 0, 1, 1, 2, 3, 4, 5, 6])];
    let address = |text: &&str| -> IpAddr { text.parse().expect("an address") };
    let port = if random.below(2) == 0 { edge(random, rules) } else { *random.one_of(&[80, 81, 82, 83]) };
    Sent {
        is_inside: device.is_none(),
        is_tcp: random.below(3) > 0,
        source: SocketAddr::new(address(random.one_of(sources)), source_port),
        destination: SocketAddr::new(address(random.one_of(destinations)), port),
        device: device.or(Some("lo")).filter(|_| random.below(2) == 0),
    }
}

fn edge(random: &mut Random, rules: &[Generated]) -> u16 {
    let rule = &random.one_of(rules).spec;
    let all: Vec<_> = ["match", "except"].iter().filter_map(|key| rule[key].as_array()).flatten().collect();
    let text = random.one_of(&all).as_str().expect("a match").to_owned();
    let ports: PortSet = text.rsplit_once(':').expect("ports").1.parse().expect("ports");
    let (first, last) = *random.one_of(ports.ranges());
    let port = *random.one_of(&[first, last, first.saturating_sub(1), last.saturating_add(1)]);
    // Listeners of the relay are from 61000 on; what comes to them is another matter.
    if (1..60_000).contains(&port) { port } else { 83 }
}
