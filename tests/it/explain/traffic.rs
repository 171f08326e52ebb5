//! What `explain` says, against what a real packet then does: which rule's counter moves, and who answers.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    process::Command,
};

use redirector_tests::{
    client::answer_at,
    daemon::{Daemon, binary},
    eventually::eventually,
    exec::PYTHON,
    features::Feature,
    http::{get, post},
    netns::Netns,
    pattern::Random,
    scale,
    server::Server,
    topology::{Topology, at},
    udp::bound,
    world::World,
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::generated::{APPLICATIONS, Generated, MARKER, SERVERS, Sent, rules, sent};
use crate::SECOND;

const FLOWS: usize = 20;

const MARKER_RULE: &str = "marker";

/// The world of the generator.
struct Site {
    world: World,
    /// As it is told by whom it was decided.
    decides: &'static str,
    _applications: Vec<Server>,
    datagrams: BTreeMap<u16, UdpSocket>,
    servers: Vec<Server>,
    next_port: u16,
}

/// As on a kernel without test runs of such programs: bpf(2) `BPF_PROG_TEST_RUN` says what that kernel says.
const WITHOUT_TEST_RUNS: &str = "
import ctypes, os, struct, sys
load, jump, give = 0x20, 0x15, 0x06
ENOTSUPP, TEST_RUN = 524, 10
steps = [(load, 0, 0, 0), (jump, 0, 3, int(sys.argv[1])), (load, 0, 0, 16), (jump, 0, 1, TEST_RUN),
         (give, 0, 0, 0x50000 | ENOTSUPP), (give, 0, 0, 0x7fff0000)]
code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack('HP', len(steps), ctypes.addressof(code)))
# PR_SET_SECCOMP, SECCOMP_MODE_FILTER
assert ctypes.CDLL(None).prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
";

fn daemon_without_test_runs() -> Daemon {
    let mut command = Command::new(PYTHON);
    command.args(["-c", WITHOUT_TEST_RUNS, &nix::libc::SYS_bpf.to_string()]).arg(binary()).arg("run");
    Daemon::spawn(&mut command, &[])
}

impl Site {
    fn new(daemon: Daemon, decides: &'static str) -> Self {
        let world = World::with(daemon, Topology::new());
        let (pod, client) = (&world.net.pod, &world.net.client);
        pod.ip(&format!(
            "link add eth1 type veth peer name eth1 netns {}\n\
             link set eth1 addrgenmode none up\n\
             address add 10.77.0.3/24 dev eth0\n\
             address add 10.77.0.5/24 dev eth0\n\
             address add fd77::3/64 dev eth0 nodad\n\
             address add 10.78.0.1/24 dev eth1\n\
             address add fd78::1/64 dev eth1 nodad",
            client.name()
        ));
        client.ip("link set eth1 addrgenmode none up\n\
             address add 10.77.0.4/24 dev eth0\n\
             address add fd77::4/64 dev eth0 nodad\n\
             address add 10.78.0.2/24 dev eth1\n\
             address add fd78::2/64 dev eth1 nodad");
        // Each refusal is to be heard of.
        pod.sysctl("net/ipv4/icmp_ratemask", "0");
        pod.sysctl("net/ipv6/icmp/ratelimit", "0");
        eventually("the second device works", SECOND, || {
            let routes = pod.must("ip", &["-6", "route", "show", "table", "local"]).stdout;
            let is_there = routes.contains("local fd78::1 dev eth1");
            if is_there && routes.contains("multicast ff00::/8 dev eth1") { Ok(()) } else { Err(routes) }
        });
        let ports = APPLICATIONS.into_iter().chain([MARKER]);
        let _applications = ports.clone().map(|port| Server::inside(pod, "app", port)).collect();
        // One for both families.
        let datagrams = ports.map(|port| (port, bound(pod, at(IpAddr::from([0_u16; 8]), port)))).collect();
        let servers = (0..SERVERS).map(|number| Server::here(&format!("server-{number}"))).collect();
        Self { world, decides, _applications, datagrams, servers, next_port: 10_000 }
    }

    #[track_caller]
    fn attach(&self, spec: &Value) {
        let body = json!({ "target": self.world.target(), "rule": spec }).to_string();
        let answer = post(self.world.daemon.socket(), "/v1/attach", &body);
        assert_eq!(answer.status, 200, "{spec:#}: {answer:#?}");
    }

    /// Puts rules into force, first those that are down by then.
    #[track_caller]
    fn put(&self, rules: &[Generated]) {
        let (down, up): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| rule.is_down);
        if !down.is_empty() {
            let gone = Netns::new();
            for rule in down {
                let mut spec = rule.spec.clone();
                spec["to"] = json!([format!("{}/127.0.0.1:9", gone.target())]);
                self.attach(&spec);
            }
            gone.delete();
            self.world.eventually("rules are down", "/rules", |rules| {
                rules.as_array().is_some_and(|rules| rules.iter().all(|rule| rule["state"] == "down"))
            });
        }
        for rule in up {
            self.attach(&rule.spec);
        }
        // It is published with what is down by now.
        self.attach(&json!({
            "name": MARKER_RULE, "match": [format!("any:{MARKER}")], "to": ["pass"], "priority": i32::MAX,
        }));
    }

    /// What was decided, by rule and by what is counted; without what redirector's own connections make.
    #[track_caller]
    fn counters(&self) -> BTreeMap<(String, String), u64> {
        let path = format!("/v1/namespaces?target={}", self.world.target());
        let list = get(self.world.daemon.socket(), &path).body;
        let pod = &list["namespaces"][0];
        let unmatched = (("".to_owned(), "unmatched".to_owned()), pod["counters"]["unmatched"].as_u64());
        let rules = pod["rules"].as_array().expect("rules").iter().filter(|rule| rule["name"] != MARKER_RULE);
        let counters = rules.flat_map(|rule| {
            let counters = rule["counters"].as_object().expect("counters").iter();
            let name = rule["name"].as_str().expect("a name");
            counters
                .filter(|(key, _)| *key != "bypassed")
                .map(|(key, value)| ((name.to_owned(), key.clone()), value.as_u64()))
        });
        counters.chain([unmatched]).filter_map(|(key, value)| Some((key, value?))).collect()
    }

    #[track_caller]
    fn explain(&self, flow: &str) -> Value {
        let body = json!({ "target": self.world.target(), "flow": flow }).to_string();
        let answer = post(self.world.daemon.socket(), "/v1/explain", &body);
        assert_eq!(answer.status, 200, "{flow}: {answer:#?}");
        answer.body
    }

    fn from(&self, sent: &Sent) -> &Netns {
        if sent.is_inside { &self.world.net.pod } else { &self.world.net.client }
    }

    fn port(&mut self) -> u16 {
        self.next_port += 1;
        self.next_port
    }

    /// What was sent before on the same way has arrived when this returns.
    #[track_caller]
    fn mark(&mut self, sent: &Sent) {
        let source = at(sent.source.ip(), self.port());
        let heard = answer_at(self.from(sent), source, at(sent.destination.ip(), MARKER));
        assert_eq!(heard, "app", "the marker after {}", sent.text());
    }

    /// Who answers, or `refused`, `reset`, `silence`.
    #[track_caller]
    fn send(&mut self, sent: &Sent, expect_silence: bool) -> String {
        match (sent.is_tcp, expect_silence) {
            (true, false) => answer_at(self.from(sent), sent.source, sent.destination),
            (true, true) => self.connect_to_nobody(sent),
            (false, _) => self.send_datagram(sent, expect_silence),
        }
    }

    #[track_caller]
    fn connect_to_nobody(&mut self, sent: &Sent) -> String {
        let socket = self.from(sent).enter(|| {
            let socket = Socket::new(Domain::for_address(sent.destination), Type::STREAM.nonblocking(), None)
                .expect("socket");
            socket.set_reuse_address(true).expect("SO_REUSEADDR");
            socket.bind(&sent.source.into()).expect("bind");
            socket
        });
        let begun = socket.connect(&sent.destination.into()).expect_err("it takes its time");
        assert_eq!(begun.raw_os_error(), Some(nix::libc::EINPROGRESS), "{begun}");
        self.mark(sent);
        match (socket.take_error().expect("SO_ERROR"), socket.peer_addr()) {
            (None, Err(_)) => "silence".to_owned(),
            (error, peer) => format!("{error:?}, {peer:?}"),
        }
    }

    #[track_caller]
    fn send_datagram(&mut self, sent: &Sent, expect_silence: bool) -> String {
        let client = bound(self.from(sent), sent.source);
        client.connect(sent.destination).expect("connect");
        client.send(b"x").expect("send");
        if expect_silence {
            self.mark(sent);
            return match client.take_error().expect("SO_ERROR") {
                None => "silence".to_owned(),
                Some(error) => error.to_string(),
            };
        }
        let port = sent.destination.port();
        // Whoever does not hear of it hears nothing for as long as a test may hang.
        client.set_nonblocking(true).expect("O_NONBLOCK");
        let application = self.datagrams.get(&port);
        if let Some(application) = application {
            application.set_nonblocking(true).expect("O_NONBLOCK");
        }
        eventually("somebody hears of a datagram", SECOND, || {
            match client.recv(&mut [0; 16]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => return Ok("refused".to_owned()),
                other => return Ok(format!("{other:?}")),
            }
            let Some(application) = application else { return Err("nothing") };
            match application.recv_from(&mut [0; 16]) {
                Err(_) => Err("nothing"),
                Ok((_, from)) => {
                    let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                    Ok(if from == sent.source { "app".to_owned() } else { format!("another's, {from}") })
                }
            }
        })
    }

    /// What must happen after this explanation: who answers, and which counter moves.
    fn expected(&self, sent: &Sent, explained: &Value) -> (String, Option<(String, String)>) {
        let port = sent.destination.port();
        let is_served = APPLICATIONS.contains(&port) || port == MARKER;
        let application = if is_served { "app" } else { "refused" };
        let name = explained["rule"]["name"].as_str().unwrap_or_default().to_owned();
        let is_unavailable = explained["rule"]["on_unavailable"]["decided"] == true;
        let (heard, counter) = match explained["verdict"].as_str().expect("a verdict") {
            "steer" => (self.steered(explained, is_served), "steered"),
            "pass" => (application.to_owned(), "passed"),
            "reject" => ("refused".to_owned(), "rejected"),
            "drop" => ("silence".to_owned(), "dropped"),
            "unmatched" => {
                let counter = sent.is_tcp.then(|| (String::new(), "unmatched".to_owned()));
                return (application.to_owned(), counter);
            }
            _ => panic!("{explained:#}"),
        };
        let counter = if is_unavailable { "unavailable" } else { counter };
        (heard, (name != MARKER_RULE).then(|| (name, counter.to_owned())))
    }

    fn steered(&self, explained: &Value, is_served: bool) -> String {
        let to = explained["rule"]["to"][0].as_str().expect("a destination");
        let number = self.servers.iter().position(|server| server.destination() == to);
        match number {
            Some(number) => format!("server-{number}"),
            None if to == "original" && is_served => "app".to_owned(),
            // It was accepted before the application was asked.
            None if to == "original" => "reset".to_owned(),
            None => panic!("{explained:#}"),
        }
    }

    #[track_caller]
    fn check(&mut self, sent: &Sent, rules: &[Generated]) -> String {
        let flow = sent.text();
        let before = self.counters();
        let explained = self.explain(&flow);
        assert_eq!(self.counters(), before, "asking about {flow} was counted");
        let specs: Vec<_> = rules.iter().map(|rule| rule.spec.to_string()).collect();
        let context = || format!("{flow}\n{explained:#}\n{}", specs.join("\n"));
        assert_eq!(explained["decided_by"]["who"], self.decides, "{}", context());
        let (expected, counter) = self.expected(sent, &explained);
        let heard = self.send(sent, expected == "silence");
        assert_eq!(heard, expected, "{}", context());
        let is_original = explained["rule"]["to"][0] == "original";
        let after = self.counters();
        let moved: Vec<_> = after.iter().filter(|(key, value)| before.get(*key) != Some(*value)).collect();
        let moved = moved.into_iter().map(|(key, _)| key.clone());
        // What it makes on its way to the application may be nobody's.
        let moved: Vec<_> = moved.filter(|(rule, _)| !(is_original && rule.is_empty())).collect();
        assert_eq!(moved, counter.into_iter().collect::<Vec<_>>(), "{}", context());
        let down = explained["rule"]["on_unavailable"]["reason"] == "down";
        let verdict = explained["verdict"].as_str().expect("a verdict");
        let protocol = if sent.is_tcp { "tcp" } else { "udp" };
        format!("{protocol} {verdict}{}", if down { ", down" } else { "" })
    }
}

/// What was seen in so many sets of rules.
#[track_caller]
fn try_out(site: &mut Site, seed: u64, sets: usize) -> BTreeMap<String, usize> {
    let servers: Vec<_> = site.servers.iter().map(Server::destination).collect();
    let (mut random, mut seen) = (Random::new(seed), BTreeMap::<String, usize>::new());
    for set in 0..sets {
        let rules = rules(&mut random, &servers);
        site.put(&rules);
        for _ in 0..FLOWS {
            let port = site.port();
            let sent = sent(&mut random, &rules, port);
            *seen.entry(site.check(&sent, &rules)).or_default() += 1;
        }
        site.world.detach();
        println!("set {set}: {seen:?}");
    }
    assert_eq!(seen.values().sum::<usize>(), sets * FLOWS);
    seen
}

/// Takes long because each of 200 flows is explained, for which a program is loaded, and then sent.
#[test]
fn what_is_said_is_what_happens() {
    let decides = if Feature::TestRun.is_here() { "kernel" } else { "rule_set" };
    let (mut site, sets) = (Site::new(Daemon::start(), decides), scale::often() / 2);
    let seen = try_out(&mut site, 7, sets);
    let least = if sets < 50 { 1 } else { sets * FLOWS / 100 };
    // A generator that gives one thing only proves little.
    for kind in [
        "tcp steer",
        "tcp pass",
        "tcp reject",
        "tcp drop",
        "tcp unmatched",
        "udp pass",
        "udp reject",
        "udp drop",
        "udp unmatched",
    ] {
        assert!(seen.get(kind).is_some_and(|count| *count >= least), "{kind}: {seen:?}");
    }
    let down = ["tcp pass, down", "tcp reject, down", "tcp drop, down"].map(|kind| seen.contains_key(kind));
    let is_enough = if sets < 50 { down.contains(&true) } else { !down.contains(&false) };
    assert!(is_enough, "{seen:?}");
}

/// As long as [`what_is_said_is_what_happens`], for the same reason.
#[test]
fn without_test_runs_the_same_is_said() {
    let mut site = Site::new(daemon_without_test_runs(), "rule_set");
    let seen = try_out(&mut site, 11, (scale::often() / 5).max(12));
    for kind in ["tcp steer", "tcp pass", "tcp reject", "tcp drop", "tcp unmatched", "udp drop"] {
        assert!(seen.contains_key(kind), "{kind}: {seen:?}");
    }
    let rules = rules(&mut Random::new(12), &[site.servers[0].destination()]);
    site.put(&rules);
    let explained = site.explain("tcp 10.77.0.2:1 -> 10.77.0.1:9");
    let why = explained["decided_by"]["why"].as_str().expect("a reason");
    assert!(why.contains("no test runs") && why.contains("5.13"), "{explained:#}");
}
