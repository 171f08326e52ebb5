//! "drop on lookup" of UDP, and "drop on valid ifindex": who is refused although a server is there.

use std::net::IpAddr;

use redirector_tests::{
    client::answer,
    features::Feature,
    server::Server,
    topology::{POD_V4, POD_V6, at},
    udp::{assert_refused, bound, client, exchange},
    world::{World, count},
};

use super::{EXT_PORT, LOOPBACK};

#[track_caller]
fn assert_udp_dropped(external: IpAddr, other: IpAddr) {
    let world = World::new();
    let servers = [external, other].map(|address| bound(&world.net.pod, at(address, EXT_PORT)));
    let clients = [external, other].map(|address| client(&world.net.client, at(address, EXT_PORT)));
    let external = if external.is_ipv6() { format!("[{external}]") } else { external.to_string() };
    world.steer("drop", &format!("udp:{external}:{EXT_PORT}"), "reject");
    assert_refused(&clients[0]);
    exchange(&clients[1], &servers[1], "the other family");
    world.detach();
    exchange(&clients[0], &servers[0], "after");
}

/// "UDP IPv4 drop on lookup".
#[test]
fn udp4_drop_on_lookup() {
    assert_udp_dropped(POD_V4, POD_V6);
}

/// "UDP IPv6 drop on lookup".
#[test]
fn udp6_drop_on_lookup() {
    assert_udp_dropped(POD_V6, POD_V4);
}

/// The original's program drops what comes by interface 1, the loopback device.
fn drops_by_loopback(matching: &str) -> Option<World> {
    let world = World::new();
    let target = world.target();
    let attach =
        ["attach", &target, "--name", "drop", "--match", matching, "--to", "reject", "--interface", "lo"];
    let outcome = world.cli().run(&attach);
    if !Feature::IngressIfindex.is_here() {
        let error = redirector_tests::cli::error(&outcome, 1);
        assert!(error.contains("does not tell") && outcome.stderr.contains("5.17"), "{outcome}");
        return None;
    }
    outcome.success();
    Some(world)
}

#[track_caller]
fn assert_tcp_dropped_by_ifindex(loopback: IpAddr, pod: IpAddr) {
    let Some(world) = drops_by_loopback(&format!("tcp:{EXT_PORT}")) else { return };
    let _app = Server::inside(&world.net.pod, "app", EXT_PORT);
    assert_eq!(answer(&world.net.pod, at(loopback, EXT_PORT)), "refused");
    assert_eq!(world.answer(at(pod, EXT_PORT)), "app");
    assert_eq!(count(&world.rule("drop"), "/counters/rejected"), 1);
}

#[track_caller]
fn assert_udp_dropped_by_ifindex(loopback: IpAddr, pod: IpAddr) {
    let Some(world) = drops_by_loopback(&format!("udp:{EXT_PORT}")) else { return };
    let _inner = bound(&world.net.pod, at(loopback, EXT_PORT));
    let outer = bound(&world.net.pod, at(pod, EXT_PORT));
    assert_refused(&client(&world.net.pod, at(loopback, EXT_PORT)));
    exchange(&client(&world.net.client, at(pod, EXT_PORT)), &outer, "by another interface");
    assert_eq!(count(&world.rule("drop"), "/counters/rejected"), 1);
}

/// "TCP IPv4 drop on valid ifindex".
#[test]
fn tcp4_drop_on_valid_ifindex() {
    assert_tcp_dropped_by_ifindex(LOOPBACK[0], POD_V4);
}

/// "TCP IPv6 drop on valid ifindex".
#[test]
fn tcp6_drop_on_valid_ifindex() {
    assert_tcp_dropped_by_ifindex(LOOPBACK[1], POD_V6);
}

/// "UDP IPv4 drop on valid ifindex".
#[test]
fn udp4_drop_on_valid_ifindex() {
    assert_udp_dropped_by_ifindex(LOOPBACK[0], POD_V4);
}

/// "UDP IPv6 drop on valid ifindex".
#[test]
fn udp6_drop_on_valid_ifindex() {
    assert_udp_dropped_by_ifindex(LOOPBACK[1], POD_V6);
}
