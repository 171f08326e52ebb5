//! Where listeners of hand-offs are bound inside the namespace: who is there connects to them by that address in vain.

use std::net::SocketAddr;

use redirector_tests::{
    client::{answer, answer_at},
    eventually::eventually,
    server::{Place, Server, echo, listen},
    topology::{CLIENT_V4, CLIENT_V6, POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::json;

use super::{SECOND, handoff::ask_for};

/// A hand-off for the client only, and where its listeners are: IPv4, IPv6.
fn guarded(world: &World) -> (Server, [SocketAddr; 2]) {
    let request = json!({
        "target": world.target(), "match": ["tcp:80"], "name": "guarded", "from": [CLIENT_V4, CLIENT_V6],
    });
    let listeners = ask_for(world, &request);
    let addresses = [0, 1].map(|number: usize| {
        listeners[number].local_addr().expect("getsockname").as_socket().expect("an internet address")
    });
    (Server::of(listeners, "mine", echo), addresses)
}

#[track_caller]
fn assert_not_reached_from_inside(world: &World, addresses: [SocketAddr; 2]) {
    for address in addresses {
        assert_eq!(answer(&world.net.pod, address), "refused", "{address}");
    }
    // From another address of the namespace, as well.
    assert_eq!(answer_at(&world.net.pod, at(POD_V4, 0), addresses[0]), "refused");
}

#[test]
fn nobody_inside_gets_to_a_handed_off_listener_past_its_rule() {
    let world = World::new();
    let (mine, addresses) = guarded(&world);
    assert_not_reached_from_inside(&world, addresses);
    assert_eq!(mine.accepted(), 0);
    assert_eq!(count(&world.pod(), "/counters/own_listener"), 3);
    assert_eq!(count(&world.pod(), "/counters/unmatched"), 0);
    // Whom the rule takes is served, and the same port elsewhere is the application's.
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "mine");
    }
    let elsewhere = at([127, 0, 0, 2].into(), addresses[0].port());
    let _app = Server::start(Place::In(&world.net.pod), "app", &[elsewhere], echo);
    assert_eq!(answer(&world.net.pod, elsewhere), "app");
    assert_eq!(count(&world.pod(), "/counters/own_listener"), 3);
}

#[test]
fn no_other_rule_leads_to_a_handed_off_listener() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let (mine, addresses) = guarded(&world);
    let destinations = ["pass", "original", "drop", &proxy.destination()];
    for to in destinations {
        world.steer("rest", "tcp:*", to);
        assert_not_reached_from_inside(&world, addresses);
        assert_eq!(count(&world.rule("rest"), "/counters/passed"), 0, "{to}");
    }
    world.cli().json(&["detach", &world.target(), "--rule", "rest"]);
    // One that is unavailable, and another hand-off.
    let request = json!({
        "target": world.target(), "match": ["tcp:*"], "name": "rest", "on_unavailable": "pass", "priority": 1,
    });
    let others = ask_for(&world, &request);
    assert_not_reached_from_inside(&world, addresses);
    drop(others);
    assert_not_reached_from_inside(&world, addresses);
    assert_eq!(count(&world.rule("rest"), "/counters/unavailable"), 0);
    assert_eq!(count(&world.pod(), "/counters/own_listener"), 3 * (destinations.len() + 2) as u64);
    assert_eq!((mine.accepted(), proxy.accepted()), (0, 0));
}

#[test]
fn a_listener_that_outlives_its_rule_is_not_reached_until_it_is_closed() {
    let world = World::new();
    let (mine, addresses) = guarded(&world);
    world.steer("other", "tcp:81", "reject");
    world.cli().json(&["detach", &world.target(), "--rule", "guarded"]);
    assert_not_reached_from_inside(&world, addresses);
    assert_eq!(mine.accepted(), 0);
    drop(mine);
    // Its port is anybody's again. Programs that other tests start have it too, between fork and exec.
    for address in addresses {
        let app = eventually("the port is free", SECOND, || {
            world.net.pod.enter(|| std::net::TcpListener::bind(address)).map_err(|error| error.to_string())
        });
        let _app = Server::of(vec![app.into()], "app", echo);
        assert_eq!(answer(&world.net.pod, address), "app", "{address}");
    }
}

#[test]
fn explain_says_that_a_handed_off_listener_is_not_reached_by_its_own_address() {
    let world = World::new();
    let (_mine, addresses) = guarded(&world);
    for with_rule in [false, true] {
        for address in addresses {
            let flow = format!("tcp {} -> {address}", at(address.ip(), 40_000));
            let said = world.cli().json(&["explain", &world.target(), &flow]);
            assert_eq!(
                (&said["own_listener"], &said["verdict"]),
                (&json!(true), &json!("reject")),
                "{said:#}"
            );
            assert_eq!(said["rule"]["name"], if with_rule { json!("rest") } else { json!(null) }, "{said:#}");
            let beside = format!("tcp {} -> {}", at(address.ip(), 40_000), at(address.ip(), 1));
            assert_eq!(world.cli().json(&["explain", &world.target(), &beside])["own_listener"], json!(null));
        }
        world.attach("--name rest --match tcp:* --to pass");
    }
    assert_eq!(count(&world.pod(), "/counters/own_listener"), 0, "what is asked about is not counted");
}

#[test]
fn a_listener_in_one_namespace_takes_its_port_from_no_other_namespace() {
    let (world, other) = (World::new(), redirector_tests::netns::Netns::new());
    let (_mine, addresses) = guarded(&world);
    other.ip("link set lo up");
    world.cli().json(&["attach", &other.target(), "--match", "tcp:80", "--to", "reject"]);
    for address in addresses {
        let app = Server::of(vec![other.enter(|| listen(address))], "app", echo);
        assert_eq!(answer(&other, address), "app");
        drop(app);
    }
}
