//! Rules that say by which interface a connection comes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use redirector_tests::{
    cli::error,
    client::answer,
    features::Feature,
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::json;

/// What is reached by `eth0`, and what by `lo`.
const DESTINATIONS: [(IpAddr, IpAddr); 2] =
    [(POD_V4, IpAddr::V4(Ipv4Addr::LOCALHOST)), (POD_V6, IpAddr::V6(Ipv6Addr::LOCALHOST))];

/// What a kernel that does not tell says instead.
#[track_caller]
fn assert_refused(world: &World) {
    let before = Snapshot::of(&world.net.pod);
    let target = world.target();
    let arguments = ["attach", &target, "--match", "tcp:80", "--to", "reject", "--interface", "eth0"];
    let outcome = world.cli().run(&arguments);
    assert!(error(&outcome, 1).contains("does not tell") && outcome.stderr.contains("5.17"), "{outcome}");
    assert_eq!(world.list()["namespaces"], json!([]));
    Snapshot::of(&world.net.pod).assert_same_as(&before);
}

#[test]
fn a_rule_takes_what_comes_by_its_interface() {
    let world = World::new();
    if !Feature::IngressIfindex.is_here() {
        return assert_refused(&world);
    }
    let [outside, inside, rest] = ["outside", "inside", "rest"].map(Server::here);
    world.attach(&format!("--name a --match tcp:80 --to {}", rest.destination()));
    world.attach(&format!("--name b --match tcp:80 --interface eth0 --to {}", outside.destination()));
    world.attach(&format!("--name c --match tcp:80 --interface lo --to {}", inside.destination()));
    for (pod, loopback) in DESTINATIONS {
        assert_eq!(world.answer(at(pod, 80)), "outside");
        assert_eq!(answer(&world.net.pod, at(loopback, 80)), "inside");
        // It never leaves, and counts as what comes by the interface that has the address.
        assert_eq!(answer(&world.net.pod, at(pod, 80)), "outside");
    }
    let document = world.pod();
    assert_eq!(document["rules"][1]["interface"], json!(["eth0"]), "{document:#}");
    assert_eq!(document["connections"]["failed"].get("unattributed"), None, "{document:#}");
    // Both in one rule, and a port that it alone names.
    world.attach(&format!(
        "--name b --match tcp:80-81 --interface eth0 --interface lo --to {}",
        outside.destination()
    ));
    for (pod, loopback) in DESTINATIONS {
        assert_eq!(world.answer(at(pod, 81)), "outside");
        assert_eq!(answer(&world.net.pod, at(loopback, 81)), "outside");
    }
    world.attach(&format!("--name b --match tcp:81 --interface lo --to {}", outside.destination()));
    for (pod, loopback) in DESTINATIONS {
        assert_eq!(world.answer(at(pod, 81)), "refused");
        assert_eq!(answer(&world.net.pod, at(loopback, 81)), "outside");
        assert_eq!(world.answer(at(pod, 80)), "rest");
        assert_eq!(answer(&world.net.pod, at(loopback, 80)), "inside");
    }
}

#[test]
fn an_interface_that_is_not_there_is_an_error_that_names_those_that_are() {
    let world = World::new();
    if !Feature::IngressIfindex.is_here() {
        return assert_refused(&world);
    }
    let target = world.target();
    for (name, code, part) in [
        ("eth7", 1, "`eth7`"),
        ("", 2, "interface ``"),
        ("a/b", 2, "interface `a/b`"),
        ("sixteen-bytes-xx", 2, "15 bytes"),
    ] {
        let arguments = ["attach", &target, "--match", "tcp:80", "--to", "reject", "--interface", name];
        let outcome = world.cli().run(&arguments);
        assert!(error(&outcome, code).contains(part), "{name}: {outcome}");
        assert!(code == 2 || outcome.stderr.contains("there are: lo, eth0"), "{name}: {outcome}");
    }
    assert_eq!(world.list()["namespaces"], json!([]));
}

#[test]
fn a_rule_follows_its_interface_when_that_goes_and_comes_back() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    if !Feature::IngressIfindex.is_here() {
        return assert_refused(&world);
    }
    let client = world.net.client.name();
    let second = |index: u32| {
        world.net.pod.ip(&format!(
            "link add eth1 index {index} type veth peer name eth1 netns {client}\n\
             link set eth1 up\n\
             address add 10.78.0.1/24 dev eth1"
        ));
        world.net.client.ip("link set eth1 up\naddress add 10.78.0.2/24 dev eth1");
    };
    second(101);
    let to = at([10, 78, 0, 1].into(), 80);
    world.attach(&format!("--name b --match tcp:80 --interface eth1 --to {}", proxy.destination()));
    assert_eq!(world.answer(to), "proxy");
    assert_eq!(world.answer(at(POD_V4, 80)), "refused", "that one comes by eth0");
    world.net.pod.ip("link delete eth1");
    let gone =
        world.eventually("it is gone", "/rules/0/interfaces_missing", |missing| *missing == json!(["eth1"]));
    let listed = world.cli().run(&["list"]).success().stdout;
    assert!(listed.contains("by eth1 (not there: eth1)"), "{gone:#}: {listed}");
    // The number of the one before is another one's now.
    world.net.pod.ip("link add eth2 index 101 type veth peer name eth3\nlink set eth2 up");
    second(102);
    world.eventually("it is back", "/rules/0", |rule| rule.get("interfaces_missing").is_none());
    assert_eq!(world.answer(to), "proxy");
    let document = world.pod();
    assert_eq!(count(&document, "/rules/0/counters/steered"), 2, "{document:#}");
}
