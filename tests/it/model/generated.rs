//! Generated rules and packets. Three answers are compared: the kernel's, that of the compiled rule set in user
//! space, and that of a model that looks at the rules as users write them and knows nothing of cells.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use redirector::config::{Destination, OnUnavailable, Rule, compile};
use redirector_tests::{
    needs,
    pattern::Random,
    topology::{CLIENT_V6, at},
};

use super::{Bench, CLIENT, Verdict, flow, placed, rule};

/// Which rule decides: the longer prefix, then fewer ports, then the name. Of rules, not of cells.
fn model(rules: &[(Rule, bool)], to: SocketAddr) -> Option<usize> {
    let mut taking: Vec<_> = rules
        .iter()
        .enumerate()
        .flat_map(|(index, (rule, _))| rule.matches.iter().map(move |one| (index, rule, one)))
        .filter(|(_, _, one)| one.prefix.is_none_or(|prefix| prefix.contains(&to.ip())))
        .filter(|(_, _, one)| one.ports.contains(to.port()))
        .map(|(index, rule, one)| {
            let length = one.prefix.map_or(0, |prefix| prefix.prefix_len());
            (Reverse(length), one.ports.len(), rule.name.as_str(), index)
        })
        .collect();
    taking.sort_unstable();
    taking.first().map(|(_, _, _, index)| *index)
}

/// Addresses that are near one another, so that prefixes overlap.
const ADDRESSES: [&str; 12] = [
    "10.77.0.1",
    "10.77.0.2",
    "10.77.1.1",
    "10.0.0.0",
    "127.0.0.1",
    "255.255.255.255",
    "fd77::1",
    "fd77::2",
    "fd77:0:0:1::1",
    "fd00::",
    "::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
];

const PORTS: [u16; 10] = [1, 79, 80, 81, 90, 443, 8080, 32_768, 65_534, 65_535];

fn random_match(random: &mut Random) -> String {
    let ports = match random.below(5) {
        0 => "*".to_owned(),
        1 => random.one_of(&PORTS).to_string(),
        2 => format!("{},{}", random.one_of(&PORTS), random.one_of(&PORTS)),
        3 => {
            let (one, two) = (*random.one_of(&PORTS), *random.one_of(&PORTS));
            format!("{}-{}", one.min(two), one.max(two))
        }
        _ => format!("{}-{},443,1", 70 + random.below(10), 80 + random.below(20)),
    };
    if random.below(4) == 0 {
        return format!("tcp:{ports}");
    }
    let address: IpAddr = random.one_of(&ADDRESSES).parse().expect("an address");
    let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
    let length = match random.below(4) {
        0 => 0,
        1 => bits,
        2 => bits - u8::try_from(random.below(5)).expect("small"),
        _ => u8::try_from(random.below(usize::from(bits) + 1)).expect("at most 128"),
    };
    let net = truncated(address, length);
    match net {
        IpAddr::V4(_) => format!("tcp:{net}/{length}:{ports}"),
        IpAddr::V6(_) => format!("tcp:[{net}/{length}]:{ports}"),
    }
}

/// An address without the bits after a prefix.
fn truncated(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            Ipv4Addr::from_bits(v4.to_bits() & !u32::MAX.checked_shr(length.into()).unwrap_or(0)).into()
        }
        IpAddr::V6(v6) => {
            Ipv6Addr::from_bits(v6.to_bits() & !u128::MAX.checked_shr(length.into()).unwrap_or(0)).into()
        }
    }
}

fn random_rules(random: &mut Random) -> Vec<(Rule, bool)> {
    // In no order of names.
    let mut names = vec!["a", "b", "aa", "Z", "0", "rule-1", "rule-10", "rule-2", "zz", "m.n"];
    (0..1 + random.below(names.len()))
        .map(|_| {
            let name = names.swap_remove(random.below(names.len()));
            let mut matches: Vec<_> = (0..1 + random.below(4)).map(|_| random_match(random)).collect();
            matches.sort_unstable();
            matches.dedup();
            let matches: Vec<_> = matches.iter().map(String::as_str).collect();
            let to = random.one_of(&["original", "127.0.0.1:1", "unix:/x", "pass", "reject"]);
            let on_unavailable = random.one_of(&["pass", "reject"]);
            (rule(name, &matches, to, on_unavailable), random.below(8) == 0)
        })
        .collect()
}

/// What is expected of a packet that this rule decides.
fn expected(bench: &Bench, (rule, down): &(Rule, bool), to: SocketAddr, bypassed: bool) -> Verdict {
    match rule.to {
        Destination::Pass => Verdict::Pass,
        _ if bypassed => Verdict::Pass,
        Destination::Reject => Verdict::Drop,
        _ if !down => bench.steered(to),
        _ if rule.on_unavailable == OnUnavailable::Pass => Verdict::Pass,
        _ => Verdict::Drop,
    }
}

#[test]
fn kernel_and_user_space_agree_with_the_model_about_generated_rules() {
    needs!(TestRun);
    const SETS: u64 = 200;
    const FLOWS: usize = 200;
    let bench = Bench::new();
    let mut seen = BTreeMap::<&str, u32>::new();
    for seed in 0..SETS {
        let mut random = Random::new(seed);
        let rules = random_rules(&mut random);
        let set = compile(placed(&rules)).expect("few cells");
        bench.instance.publish(&set).expect("publish");
        for _ in 0..FLOWS {
            let to = at(random.one_of(&ADDRESSES).parse().expect("an address"), *random.one_of(&PORTS));
            let itself = random.below(4) == 0;
            let from = match (itself, to.ip()) {
                (true, ip) => at(ip, 50_000),
                (false, IpAddr::V4(_)) => CLIENT,
                (false, IpAddr::V6(_)) => at(CLIENT_V6, 40_000),
            };
            let guard =
                (itself && random.below(2) == 0).then(|| bench.instance.bypass.enter(from).expect("room"));
            let flow = flow(from, to);
            let decides = model(&rules, to);
            let context = || format!("seed {seed}, {from} to {to}, rules {rules:#?}");
            let in_user_space = set.first_match(&flow).map(|cell| cell.rule as usize);
            assert_eq!(in_user_space, decides, "user space; {}", context());
            let expected =
                decides.map_or(Verdict::Pass, |index| expected(&bench, &rules[index], to, guard.is_some()));
            assert_eq!(bench.run(&flow), expected, "the kernel; {}", context());
            let kind = match (decides, expected) {
                (None, _) => "unmatched",
                (_, Verdict::Pass) => "pass",
                (_, Verdict::Drop) => "drop",
                (_, Verdict::Steer(_)) => "steer",
            };
            *seen.entry(kind).or_default() += 1;
        }
    }
    println!("{seen:?}");
    // A generator that gives one thing only proves little.
    for kind in ["unmatched", "pass", "drop", "steer"] {
        assert!(seen[kind] > 1000, "{seen:?}");
    }
}
