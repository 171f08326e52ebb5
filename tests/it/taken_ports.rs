//! A process in the pod, unprivileged, holds the pod's ports. Policy does not ask for what it owns.

use std::process::Command;

use redirector_tests::{
    cli::error,
    daemon::Daemon,
    eventually::eventually,
    exec::PYTHON,
    features::Feature,
    holder::Holder,
    netns::Netns,
    server::{Server, echo},
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, Topology, at},
    udp,
    world::{World, count},
};

use super::{
    SECOND,
    drop::{assert_waits, begin},
    handoff,
    hostile::{kill_listener, listeners},
};

/// Binds a range of ports on all addresses, `udp6` on those of IPv6, as far as they are free, and holds them while its input is open.
const HOLD: &str = r#"
import resource, socket, sys
kind = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "udp6": socket.SOCK_DGRAM}[sys.argv[1]]
limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
held = []
for port in range(int(sys.argv[2]), int(sys.argv[3]) + 1):
    one = socket.socket(socket.AF_INET6, kind)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, sys.argv[1] == "udp6")
    try:
        one.bind(("::", port))
        held.append(one)
    except OSError as error:
        if error.errno != 98:
            raise
for line in sys.stdin:
    print(line, end="", flush=True)
"#;

/// Nobody, in a pod, with these ports.
#[track_caller]
fn hold(pod: &Netns, kind: &str, first: u16, last: u16) -> Holder {
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
        PYTHON,
        "-c",
        HOLD,
        kind,
    ]);
    command.args([first.to_string(), last.to_string()]);
    pod.enter(|| Holder::start(&mut command))
}

/// All ports there are. One process may not have as many files.
#[track_caller]
fn hold_all(pod: &Netns, kind: &str) -> Vec<Holder> {
    // As container engines set it.
    pod.sysctl("net/ipv4/ip_unprivileged_port_start", "0");
    let quarters = (0..4_u16).map(|quarter| (quarter * 16_384).max(1)..=quarter * 16_384 + 16_383);
    quarters.map(|ports| hold(pod, kind, *ports.start(), *ports.end())).collect()
}

#[track_caller]
fn assert_answered(world: &World, port: u16, by: &str) {
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, port)), by, "{:#}", world.pod());
    }
}

#[test]
fn a_pod_that_holds_every_port_from_61000_up_is_steered_all_the_same() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _held = ["tcp", "udp"].map(|kind| hold(&world.net.pod, kind, 61_000, 65_535));
    let before = Snapshot::of(&world.net.pod);
    world.steer("http", "tcp:80", &proxy.destination());
    world.steer("silent", "any:81", "drop");
    let lease = handoff::ask(&world, "tcp:82", "lease");
    let addresses = lease.iter().map(|one| one.local_addr().unwrap().as_socket().unwrap());
    for address in listeners(&world).into_iter().chain(addresses) {
        assert!(address.ip().is_loopback() && address.port() < 61_000, "{address}");
    }
    let handed_off = Server::of(lease, "lease", echo);
    assert_answered(&world, 80, "proxy");
    assert_answered(&world, 82, "lease");
    for pod in [POD_V4, POD_V6] {
        assert_waits(&begin(&world.net.client, at(pod, 81)));
        let silent = udp::client(&world.net.client, at(pod, 81));
        silent.send(b"anybody?").unwrap();
        assert!(silent.take_error().unwrap().is_none());
    }
    world.eventually("what is dropped is counted", "/rules", |rules| {
        let rule = rules.as_array().unwrap().iter().find(|rule| rule["name"] == "silent").unwrap();
        count(rule, "/counters/dropped") >= 4 && count(rule, "/counters/unavailable") == 0
    });
    drop(handed_off);
    world.detach();
    Snapshot::of(&world.net.pod).assert_same_as(&before);
}

#[test]
fn a_pod_that_holds_every_port_is_steered_all_the_same() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _held = hold_all(&world.net.pod, "tcp");
    let before = Snapshot::of(&world.net.pod);
    world.steer("no", "tcp:79", "reject");
    world.steer("http", "tcp:80", &proxy.destination());
    world.steer("silent", "tcp:81", "drop");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 79)), "refused");
        let (mut open, server) = world.open(at(pod, 80));
        assert_eq!(server, "proxy");
        open.echo(&"as on any other port ".repeat(10_000)).unwrap();
        open.finish().unwrap();
        assert_waits(&begin(&world.net.client, at(pod, 81)));
    }
    for (number, address) in listeners(&world).into_iter().enumerate() {
        kill_listener(&world, address);
        world
            .eventually("it is revived", "/drift/listeners_revived", |revived| *revived == number as u64 + 1);
        assert_answered(&world, 80, "proxy");
    }
    // Another program would not know what to do with such a listener.
    let target = world.target();
    let outcome = world.cli().run(&["exec", &target, "--match", "tcp:82", "--", "true"]);
    assert!(error(&outcome, 125).contains("no free port"), "{outcome}");
    assert_eq!(world.pod()["rules"].as_array().unwrap().len(), 3, "what was there stays");
    world.eventually_at_rest();
    world.detach();
    Snapshot::of(&world.net.pod).assert_same_as(&before);
}

#[test]
fn what_drop_takes_is_refused_while_others_hold_every_udp_port_and_dropped_as_soon_as_they_do_not() {
    let world = World::new();
    let held = hold_all(&world.net.pod, "udp");
    world.steer("silent", "udp:81", "drop");
    let clients = [POD_V4, POD_V6].map(|pod| udp::client(&world.net.client, at(pod, 81)));
    clients.iter().for_each(udp::assert_refused);
    let said = world.daemon.eventually_says(&["WARN", "hold every UDP port"]);
    assert_eq!(said.len(), 1, "{said:#?}");
    drop(held);
    // By itself, without a change.
    eventually("it is dropped", SECOND * 7, || {
        drop(clients[0].send(b"anybody?"));
        let rule = world.rule("silent");
        if count(&rule, "/counters/dropped") > 0 { Ok(()) } else { Err(rule) }
    });
}

#[test]
fn who_holds_every_udp_port_of_one_family_keeps_packets_of_the_other_from_nothing() {
    let world = World::new();
    let _held = hold_all(&world.net.pod, "udp6");
    world.steer("silent", "udp:81", "drop");
    let [dropped, refused] = [POD_V4, POD_V6].map(|pod| udp::client(&world.net.client, at(pod, 81)));
    udp::assert_refused(&refused);
    dropped.send(b"anybody?").unwrap();
    world.eventually("what can be dropped is", "/rules/0/counters", |counters| {
        [count(counters, "/dropped"), count(counters, "/unavailable")] == [1, 1]
    });
    assert!(dropped.take_error().unwrap().is_none());
    let said = world.daemon.log_with(&["WARN", "hold every UDP port", "ipv6"]);
    assert!(said.len() == 1 && !said[0].contains("ipv4"), "{said:#?}");
}

#[test]
fn rules_that_are_decided_in_the_kernel_have_no_listener_and_the_first_for_the_relay_gets_them() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 82);
    let before = Snapshot::of(&world.net.pod);
    world.steer("no", "tcp:81", "reject");
    world.steer("app", "tcp:82", "pass");
    assert_eq!(world.pod()["listeners"], serde_json::json!([]));
    let sockets = || world.net.pod.must("ss", &["-Hlntu"]).stdout;
    let quiet = sockets();
    // What needs to go there goes there all the same.
    let cookie = format!("cookie:{}", world.net.pod.cookie());
    world.cli().json(&["attach", &cookie, "--name", "more", "--match", "tcp:83", "--to", "reject"]);
    world.cli().run(&["explain", &cookie, "tcp 10.77.0.2:5 -> 10.77.0.1:81"]);
    if Feature::IngressIfindex.is_here() {
        world.attach("--name eth --match tcp:84 --interface eth0 --to reject");
    }
    assert_answered(&world, 81, "refused");
    assert_answered(&world, 82, "app");
    assert_eq!(sockets(), quiet);
    // One that waits for clients already comes into force with its listeners.
    world.steer("http", "tcp:80", &proxy.destination());
    assert_answered(&world, 80, "proxy");
    let pod = world.pod();
    assert_eq!(pod["listeners"].as_array().unwrap().len(), 2, "{pod:#}");
    let used = listeners(&world);
    // They stay, and are used again.
    world.cli().json(&["detach", &world.target(), "--rule", "http"]);
    assert_answered(&world, 80, "refused");
    world.steer("http", "tcp:80", &proxy.destination());
    assert_answered(&world, 80, "proxy");
    assert_eq!(listeners(&world), used);
    world.eventually_at_rest();
    world.detach();
    Snapshot::of(&world.net.pod).assert_same_as(&before);
}

#[test]
fn clients_lose_nothing_while_the_first_rule_for_the_relay_comes_and_goes() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("rest", "tcp:1-79,81-65535", "reject");
    let visits = world.under_load(&["app", "proxy"], || {
        for _ in 0..5 {
            world.steer("http", "tcp:80", &proxy.destination());
            world.cli().json(&["detach", &world.target(), "--rule", "http"]);
        }
    });
    assert!(visits > 0 && proxy.accepted() > 0);
}

#[test]
fn a_pod_without_a_listener_of_ours_dies_as_any_other_and_is_left_as_it_was_by_a_daemon_that_is_killed() {
    let world = World::new();
    world.steer("no", "tcp:80", "reject");
    world.net.pod.delete();
    eventually("the kernel has let the namespace go", SECOND * 2, || {
        if world.net.is_joined() { Err(world.list()) } else { Ok(()) }
    });
    let mut world = World::with(Daemon::start(), Topology::new());
    let before = Snapshot::of(&world.net.pod);
    world.steer("no", "tcp:80", "reject");
    world.daemon.kill();
    Snapshot::of(&world.net.pod).assert_same_as(&before);
}

#[test]
fn no_setting_of_a_pod_keeps_it_from_being_steered() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    for (name, value) in [
        ("net/core/somaxconn", "0"),
        ("net/ipv4/ip_local_port_range", "61000 65535"),
        ("net/ipv4/ip_local_reserved_ports", "1-65535"),
        ("net/ipv4/ip_unprivileged_port_start", "61000"),
        ("net/ipv4/ip_nonlocal_bind", "0"),
        ("net/ipv6/ip_nonlocal_bind", "0"),
        ("net/ipv6/bindv6only", "1"),
        ("net/ipv4/tcp_max_syn_backlog", "0"),
        ("net/ipv4/tcp_syncookies", "0"),
        ("net/ipv6/conf/lo/disable_ipv6", "1"),
    ] {
        world.net.pod.sysctl(name, value);
    }
    world.net.pod.ip("link set lo down");
    world.steer("http", "tcp:80", &proxy.destination());
    world.steer("silent", "any:81", "drop");
    world.steer("no", "any:82", "reject");
    assert_answered(&world, 80, "proxy");
    assert_answered(&world, 82, "refused");
    assert_waits(&begin(&world.net.client, at(POD_V4, 81)));
}

#[test]
fn a_pod_with_very_many_local_routes_is_steered() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let routes = (0..20_000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        format!("route add local 10.99.{high}.{low} dev lo\n")
    });
    world.net.pod.ip(&routes.collect::<String>());
    let answer = world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(answer["warnings"], serde_json::json!([]), "{answer:#}");
    assert_answered(&world, 80, "proxy");
    // Not all of them are looked at, so nothing is said of what is not among them.
    let answer = world.steer("far", "tcp:10.98.0.1:80", "reject");
    assert_eq!(answer["warnings"], serde_json::json!([]), "{answer:#}");
}
