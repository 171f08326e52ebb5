//! Many rules of all kinds, and flows that they take or do not: the same ones for the same seed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use redirector::config::{Rule, RuleSpec};
use serde_json::json;

use crate::pattern::Random;

/// No rule names a port from here on.
const UNNAMED: u16 = 60_000;

/// Rules, and what is known of them.
#[derive(Debug)]
pub struct MixedRules {
    /// The rules. All of them steer.
    pub rules: Vec<Rule>,
    /// From each of them a flow that it takes, client first; a rule before it may take it too.
    pub hits: Vec<(SocketAddr, SocketAddr)>,
}

/// An address or a prefix, and an address in it.
fn prefix(random: &mut Random, is_ipv6: bool, shortest: [usize; 2], exact: bool) -> (String, IpAddr) {
    if is_ipv6 {
        // Half of them in the networks of one site.
        let high = if random.below(2) == 0 { 0xfd77 << 48 | random.next() >> 52 } else { random.next() };
        let bits =
            u128::from(high) << 64 | u128::from(random.next()) << 16 | u128::from(random.next() & 0xffff);
        let length = if exact { 128 } else { shortest[1] + random.below(128 - shortest[1] + 1) };
        let net = bits & (!u128::MAX.checked_shr(length as u32).unwrap_or(0));
        let host = net | bits & u128::MAX.checked_shr(length as u32).unwrap_or(0);
        (format!("{}/{length}", Ipv6Addr::from_bits(net)), Ipv6Addr::from_bits(host).into())
    } else {
        // Half of them in the private networks.
        let high = if random.below(2) == 0 { 10 << 24 } else { (random.next() as u32) & 0xff00_0000 };
        let bits = high | (random.next() >> 40) as u32;
        let length = if exact { 32 } else { shortest[0] + random.below(32 - shortest[0] + 1) };
        let inside = u32::MAX.checked_shr(length as u32).unwrap_or(0);
        (format!("{}/{length}", Ipv4Addr::from_bits(bits & !inside)), Ipv4Addr::from_bits(bits).into())
    }
}

/// Ports as users write them, and one of them.
fn ports(random: &mut Random, may_be_wide: bool) -> (String, u16) {
    let mut one = || u16::try_from(1 + random.below(usize::from(UNNAMED) - 1)).expect("a port");
    let (first, second, third) = (one(), one(), one());
    match random.below(20) {
        0..12 => (first.to_string(), first),
        12..17 => (format!("{first},{second},{third}"), second),
        range if range < 19 || !may_be_wide => {
            let last = first.saturating_add(100).min(UNNAMED - 1);
            (format!("{first}-{last}"), last)
        }
        _ => (format!("{}-{}", first.min(second), first.max(second)), first),
    }
}

impl MixedRules {
    /// So many rules: half of them IPv4; of ten four with an exact destination, four with a prefix (/8 and longer, /48 and
    /// longer), two without; of ten two with a source, one with a priority, one in twenty with an exception; three in five
    /// with one port, a quarter with three, the others with a range, which is wide only with a destination.
    ///
    /// # Panics
    ///
    /// Never: what it generates is well-formed.
    #[must_use]
    pub fn new(seed: u64, count: usize) -> Self {
        let mut random = Random::new(seed);
        let mut made = Self { rules: Vec::new(), hits: Vec::new() };
        for number in 0..count {
            let is_ipv6 = random.below(2) == 0;
            let kind = random.below(10);
            let (ports, port) = ports(&mut random, kind < 8);
            let (net, destination) = prefix(&mut random, is_ipv6, [8, 48], kind < 4);
            let matching = match (kind, is_ipv6) {
                (8.., _) => format!("tcp:{ports}"),
                (_, true) => format!("tcp:[{net}]:{ports}"),
                (_, false) => format!("tcp:{net}:{ports}"),
            };
            let (source, client) = prefix(&mut random, is_ipv6, [8, 48], false);
            let mut spec = json!({ "match": [matching], "to": ["original"] });
            if random.below(10) < 2 {
                spec["from"] = json!([source]);
            }
            if random.below(10) == 0 {
                spec["priority"] = json!(i32::try_from(random.below(21)).expect("small") - 10);
            }
            if random.below(20) == 0 && ports != port.to_string() {
                // All but one of its ports.
                let other = ports.split([',', '-']).next().unwrap_or_default();
                if other != port.to_string() {
                    spec["except"] = json!([format!("tcp:{other}")]);
                }
            }
            let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
            spec.validate().expect("a good rule");
            made.rules.push(spec.named(format!("mixed-{number:05}").parse().expect("a name")));
            made.hits.push((SocketAddr::new(client, 40_000), SocketAddr::new(destination, port)));
        }
        made
    }

    /// The same flow to a port that no rule names.
    #[must_use]
    pub fn to_unnamed_port((client, destination): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
        (client, SocketAddr::new(destination.ip(), UNNAMED + destination.port() % 5000))
    }
}
