//! `original`: the application in the same namespace, and no loop.

use std::{collections::BTreeSet, net::IpAddr};

use redirector_tests::{
    client::{answer, visit},
    server::{Place, Server, echo},
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};

const LOOPBACK: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];

/// Asserts that so many connections were each accepted once, steered once, and bypassed once on their way on.
#[track_caller]
fn assert_no_loop(world: &World, connections: usize) {
    let pod = world.eventually_at_rest();
    for counter in [
        "/connections/accepted",
        "/connections/relayed",
        "/rules/0/counters/steered",
        "/rules/0/counters/bypassed",
    ] {
        assert_eq!(count(&pod, counter), connections as u64, "{counter}: {pod:#}");
    }
    assert_eq!(pod["connections"]["failed"], serde_json::json!({}), "{pod:#}");
}

#[test]
fn an_outside_client_reaches_the_application_which_sees_the_pods_own_address() {
    let world = World::new();
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    for pod in [POD_V4, POD_V6] {
        for _ in 0..10 {
            let greeting = world.visit(at(pod, 80));
            assert_eq!(greeting.server, "app");
            assert_eq!(greeting.local, Some(at(pod, 80)), "the application sees the original destination");
            assert_eq!(greeting.peer.unwrap().ip(), pod);
        }
    }
    assert_eq!(app.accepted(), 20);
    assert_no_loop(&world, 20);
}

#[test]
fn the_application_itself_is_served_at_its_own_address_and_at_loopback() {
    let world = World::new();
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    for address in [POD_V4, POD_V6].into_iter().chain(LOOPBACK) {
        for _ in 0..10 {
            let greeting = visit(&world.net.pod, at(address, 80)).unwrap();
            assert_eq!(greeting.server, "app");
            assert_eq!(greeting.local, Some(at(address, 80)));
            assert_eq!(greeting.peer.unwrap().ip(), address);
        }
    }
    assert_eq!(app.accepted(), 40);
    assert_no_loop(&world, 40);
}

#[test]
fn the_application_never_takes_a_client_from_outside_for_a_local_one() {
    let world = World::new();
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:*", "original");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "app");
        assert_eq!(answer(&world.net.pod, at(pod, 80)), "app");
    }
    let peers: BTreeSet<_> = app.peers().iter().map(std::net::SocketAddr::ip).collect();
    assert_eq!(peers, BTreeSet::from([POD_V4, POD_V6]));
}

#[test]
fn an_application_on_one_address_only_is_served_there() {
    let world = World::new();
    for (port, address) in [(80, POD_V4), (81, POD_V6), (82, LOOPBACK[0]), (83, LOOPBACK[1])] {
        let _app = Server::start(Place::In(&world.net.pod), "app", &[at(address, port)], echo);
        world.steer("self", &format!("tcp:{port}"), "original");
        assert_eq!(answer(&world.net.pod, at(address, port)), "app");
        if !address.is_loopback() {
            assert_eq!(world.answer(at(address, port)), "app");
        }
    }
}

#[test]
fn a_port_where_no_application_listens_is_reset_and_counted() {
    let world = World::new();
    world.steer("self", "tcp:*", "original");
    for (number, pod) in [POD_V4, POD_V6].into_iter().enumerate() {
        assert_eq!(world.answer(at(pod, 80)), "reset");
        world.eventually("it is counted", "/connections/failed/connect_refused", |failed| {
            *failed == number as u64 + 1
        });
    }
}

#[test]
fn a_thousand_connections_to_the_original_destination_do_not_loop_and_leave_no_fd() {
    let world = World::new();
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:*", "original");
    let fds = world.daemon.fds_at_rest();
    for _ in 0..2 {
        for pod in [POD_V4, POD_V6] {
            world.net.client.enter(|| {
                for _ in 0..250 {
                    assert_eq!(redirector_tests::client::visit_here(at(pod, 80)).unwrap().server, "app");
                }
            });
        }
        world.eventually_at_rest();
        // Sockets that were made in stock are closed when nobody asks for more.
        world.daemon.eventually_has_fds(fds);
    }
    assert_eq!(app.accepted(), 1000);
    assert_no_loop(&world, 1000);
}

#[test]
fn connections_that_are_made_with_syn_cookies_neither_break_nor_loop() {
    const CONNECTIONS: usize = 100;
    let world = World::new();
    // Always: the kernel keeps nothing of a SYN, and the program decides about the ACK that answers it as well.
    world.net.pod.sysctl("net/ipv4/tcp_syncookies", "2");
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    for pod in [POD_V4, POD_V6] {
        world.net.client.enter(|| {
            for _ in 0..CONNECTIONS / 2 {
                assert_eq!(redirector_tests::client::visit_here(at(pod, 80)).unwrap().server, "app");
            }
        });
    }
    assert_eq!(app.accepted(), CONNECTIONS);
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/accepted"), CONNECTIONS as u64, "{pod:#}");
    assert!(
        count(&pod, "/rules/0/counters/steered") >= 2 * CONNECTIONS as u64,
        "cookies were in use: {pod:#}"
    );
    assert!(count(&pod, "/rules/0/counters/bypassed") >= 2 * CONNECTIONS as u64, "{pod:#}");
}

#[test]
fn an_application_starts_and_restarts_while_steered_connections_to_its_port_are_open() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("elsewhere", "tcp:80", &proxy.destination());
    let _open = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80)));
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("elsewhere", "tcp:80", "original");
    let _open = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80)));
    drop(app);
    let _again = Server::inside(&world.net.pod, "again", 80);
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "again");
    }
}

#[test]
fn a_port_that_the_relay_used_before_is_steered_when_a_client_uses_it() {
    // The bypass is for the relay's own connections, as long as they are open.
    let world = World::new();
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    // By a reset, which leaves no TIME_WAIT that would still have the port.
    world.open(at(POD_V4, 80)).0.reset();
    world.eventually_at_rest();
    let used = app.peers()[0];
    let other = Server::inside(&world.net.pod, "other", 81);
    world.attach("--name self --match tcp:80,81 --to original");
    world.net.pod.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&used.into()).unwrap();
        socket.connect(&at(POD_V4, 81).into()).unwrap();
    });
    world.eventually_at_rest();
    assert_eq!(other.accepted(), 1);
    assert_ne!(other.peers()[0], used, "the application must see the relay's end, not the client's");
    assert_eq!(count(&world.pod(), "/connections/accepted"), 2);
}

#[test]
fn a_connection_to_our_own_listener_is_reset_and_counted() {
    let world = World::new();
    world.steer("one", "tcp:80", "original");
    for matching in ["tcp:80", "tcp:*"] {
        // Found by its address, and by the rule that takes every port.
        world.steer("one", matching, "original");
        let before = count(&world.pod(), "/connections/failed/own_listener");
        let pod = world.pod();
        let listeners = pod["listeners"].as_array().unwrap();
        assert_eq!(listeners.len(), 2, "{pod:#}");
        for listener in listeners {
            let address = listener["address"].as_str().unwrap().parse().unwrap();
            assert_eq!(answer(&world.net.pod, address), "reset", "{address}");
        }
        world.eventually("both are counted", "/connections/failed/own_listener", |failed| {
            *failed == before + 2
        });
    }
    assert_eq!(count(&world.pod(), "/connections/relayed"), 0);
}

#[test]
fn a_listener_cannot_be_reached_from_outside_but_by_steering() {
    let world = World::new();
    world.steer("one", "tcp:80", "original");
    for listener in world.pod()["listeners"].as_array().unwrap() {
        let address: std::net::SocketAddr = listener["address"].as_str().unwrap().parse().unwrap();
        assert!(address.ip().is_loopback(), "{address}");
        for pod in [POD_V4, POD_V6] {
            assert_eq!(world.answer(at(pod, address.port())), "refused");
        }
    }
}
