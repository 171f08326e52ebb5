//! What a decision of the kernel program costs: `cargo xtask bench steer`. By `BPF_PROG_TEST_RUN`, beside a program that
//! does nothing, in one run.

use std::{
    error::Error,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use redirector::{
    config::{Rule, RuleSpec},
    kernel::{self, Ingress, Instance, RuleSet},
    matcher::{Placed, compile},
    sys::bpf::{Instruction, SkLookup, sk_lookup_program, test_run},
};
use redirector_ebpf::{CONSUMER_RELAY, FAMILY_IPV4, FAMILY_IPV6, Flow, PROTOCOL_TCP, slot};
use redirector_tests::{
    mixed_rules::MixedRules, netns::Netns, pattern::Random, server::listen, topology::at,
};
use serde_json::{Value, json};
use socket2::Socket;

/// Distinct flows of a row.
const FLOWS: usize = 400;

/// Runs of one flow whose mean is a figure.
const REPEAT: u32 = 5_000;

type Addresses = (SocketAddr, SocketAddr);

struct Bench {
    instance: Instance,
    _listeners: [Socket; 2],
    _netns: Netns,
    rows: Vec<Value>,
}

/// Nanoseconds of one row.
struct Row {
    hot: f64,
    cold: f64,
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn flow((client, destination): Addresses) -> Flow {
    kernel::flow(client, destination)
}

fn rule(spec: Value) -> Result<Rule, Box<dyn Error>> {
    let spec: RuleSpec = serde_json::from_value(spec)?;
    Ok(spec.named("bench".parse()?))
}

fn compiled(rules: &[Rule]) -> Result<(RuleSet, Duration), Box<dyn Error>> {
    let begin = Instant::now();
    let placed = rules.iter().zip(0..).map(|(rule, index)| Placed::new(rule, index));
    let image = compile(placed)?;
    Ok((image.into(), begin.elapsed()))
}

impl Bench {
    fn new(rules: u32) -> Result<Self, Box<dyn Error>> {
        let netns = Netns::new();
        netns.ip("link set lo up");
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let listeners = netns.enter(|| loopback.map(|address| listen(at(address, 0))));
        let instance = Instance::load_with(&Arc::default(), &RuleSet::default(), rules, Ingress::Read)?;
        for (listener, family) in listeners.iter().zip([FAMILY_IPV4, FAMILY_IPV6]) {
            instance.set_listener(slot(CONSUMER_RELAY, PROTOCOL_TCP, family), listener.as_fd())?;
        }
        Ok(Self { instance, _listeners: listeners, _netns: netns, rows: Vec::new() })
    }

    fn floor() -> Result<f64, Box<dyn Error>> {
        let nothing = sk_lookup_program(&[Instruction::result(1), Instruction::EXIT], "nothing")?;
        let context = SkLookup { family: 2, protocol: PROTOCOL_TCP, ..SkLookup::default() };
        let runs = (0..FLOWS).map(|_| test_run(nothing.as_fd(), &context, REPEAT));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        Ok(median(runs.iter().map(|run| run.nanoseconds.into()).collect()))
    }

    /// Measures flows, all of which must be taken or none.
    fn measure(&mut self, image: &RuleSet, flows: &[Addresses], is_hit: bool) -> Result<Row, Box<dyn Error>> {
        let flows: Vec<_> = flows.iter().map(|flow| self::flow(*flow)).collect();
        let mut cold = Vec::new();
        for flow in &flows {
            let run = self.instance.test_run(flow, 1)?;
            if image.image.decide(flow).is_some() != is_hit || (run.cookie != 0) != is_hit {
                return Err(format!("not what the row is about: {flow:?}: {run:?}").into());
            }
            cold.push(run.nanoseconds.into());
        }
        let hot = flows.iter().map(|flow| self.instance.test_run(flow, REPEAT));
        let hot = hot.collect::<Result<Vec<_>, _>>()?;
        Ok(Row { hot: median(hot.iter().map(|run| run.nanoseconds.into()).collect()), cold: median(cold) })
    }

    fn row(
        &mut self,
        (rules, what, budget): (&str, &str, f64),
        image: &RuleSet,
        flows: &[Addresses],
        is_hit: bool,
    ) -> Result<(), Box<dyn Error>> {
        let Row { hot, cold } = self.measure(image, flows, is_hit)?;
        let mark = if hot <= budget { "" } else { "  OVER" };
        println!("{rules:32} {what:28} {hot:6.0} {cold:6.0} {budget:7.0}{mark}");
        self.rows.push(json!({ "rules": rules, "flows": what, "hot": hot, "cold": cold, "budget": budget }));
        Ok(())
    }
}

/// So many of one family, and whether rules take them.
fn some(
    image: &RuleSet,
    from: impl Iterator<Item = Addresses>,
    is_ipv6: bool,
    is_hit: bool,
) -> Result<Vec<Addresses>, Box<dyn Error>> {
    let found: Vec<_> = from
        .filter(|flow| {
            flow.1.is_ipv6() == is_ipv6 && image.image.decide(&self::flow(*flow)).is_some() == is_hit
        })
        .take(FLOWS)
        .collect();
    if found.len() < FLOWS { Err(format!("only {} flows", found.len()).into()) } else { Ok(found) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut bench = Bench::new(16_384)?;
    let floor = Bench::floor()?;
    println!("{:32} {:28} {:>6} {:>6} {:>7}", "rules", "flows", "hot ns", "cold", "budget");
    println!("{:32} {:28} {floor:6.0}", "(a program that does nothing)", "");

    let mut random = Random::new(7);
    let mut near = |port: u16| -> Addresses {
        let mut host = || Ipv4Addr::from_bits(10 << 24 | (random.next() >> 40) as u32);
        (at(host().into(), 40_000), at(host().into(), port))
    };
    let (image, _) = compiled(&[rule(json!({ "match": ["tcp:80"], "to": ["original"] }))?])?;
    bench.instance.publish(&image, 0)?;
    let hits: Vec<_> = (0..FLOWS).map(|_| near(80)).collect();
    bench.row(("one port", "hit, IPv4", 75.0), &image, &hits, true)?;
    let misses: Vec<_> = (0..FLOWS).map(|_| near(81)).collect();
    bench.row(("one port", "port not named, IPv4", 32.0), &image, &misses, false)?;

    let narrow = json!({ "match": ["tcp:10.0.0.0/8:80"], "from": ["10.0.0.0/8"], "to": ["original"] });
    let (image, _) = compiled(&[rule(narrow)?])?;
    bench.instance.publish(&image, 0)?;
    bench.row(("one port, destination, source", "hit, IPv4", 110.0), &image, &hits, true)?;
    bench.row(("one port, destination, source", "port not named, IPv4", 32.0), &image, &misses, false)?;

    for count in [1_000, 10_000] {
        let name = format!("{count} mixed");
        let mixed = MixedRules::new(1, count);
        let (image, compiling) = compiled(&mixed.rules)?;
        let begin = Instant::now();
        bench.instance.publish(&image, 0)?;
        let publishing = begin.elapsed();
        let memory = bench.instance.kernel_memory()?;
        let shuffled: Vec<_> = {
            let mut random = Random::new(11);
            (0..20 * FLOWS).map(|_| *random.one_of(&mixed.hits)).collect()
        };
        let elsewhere = |(client, to): Addresses| (client, at(other(to.ip()), to.port()));
        for (is_ipv6, family, hit) in [(false, "IPv4", 100.0), (true, "IPv6", 140.0)] {
            let hits = some(&image, shuffled.iter().copied(), is_ipv6, true)?;
            bench.row((&name, &format!("hit, {family}"), hit), &image, &hits, true)?;
            let unnamed: Vec<_> = hits.iter().copied().map(MixedRules::to_unnamed_port).collect();
            bench.row((&name, &format!("port not named, {family}"), 35.0), &image, &unnamed, false)?;
            let missed = some(&image, shuffled.iter().copied().map(elsewhere), is_ipv6, false)?;
            bench.row((&name, &format!("miss, {family}"), 90.0), &image, &missed, false)?;
        }
        println!(
            "{name}: compiled in {} ms, published in {} ms; image {} KiB, the namespace in the kernel {} KiB",
            compiling.as_millis(),
            publishing.as_millis(),
            image.image.size() >> 10,
            memory >> 10,
        );
        bench.rows.push(json!({
            "rules": name,
            "compile_ms": compiling.as_secs_f64() * 1e3,
            "publish_ms": publishing.as_secs_f64() * 1e3,
            "bytes": image.image.size(),
            "kernel_memory": memory,
        }));
    }
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("steer.json");
    fs::write(
        &file,
        serde_json::to_string_pretty(&json!({ "schema": 1, "floor": floor, "rows": bench.rows }))?,
    )?;
    println!("{}", file.display());
    Ok(())
}

/// An address not far away, of the same family.
fn other(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() ^ 0x0055_5555).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() ^ 0x0055_5555 << 64).into(),
    }
}
