//! Onward connections inside a pod need ports there. They must not be those that its applications need.

use std::net::TcpStream;

use redirector_tests::{
    client::visit,
    server::Server,
    topology::{POD_V4, POD_V6, at},
    world::World,
};

#[test]
fn connections_to_the_original_destination_leave_the_applications_their_ports() {
    let world = World::new();
    world.net.pod.sysctl("net/ipv4/ip_local_port_range", "43000 43199");
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    // More than there are ports in the range, each in TIME_WAIT for a minute after its client has closed.
    for _ in 0..300 {
        let greeting = world.visit(at(POD_V4, 80));
        let port = greeting.peer.unwrap().port();
        assert!(!(43_000..=43_199).contains(&port) && port != 80, "{port}");
    }
    assert_eq!(app.accepted(), 300);
    world.detach();
    for _ in 0..20 {
        assert_eq!(visit(&world.net.pod, at(POD_V4, 80)).unwrap().server, "app");
    }
}

#[test]
fn a_port_does_not_rest_when_its_client_has_closed_first() {
    let world = World::new();
    // 35 ports are left for connections to the application, and each is in TIME_WAIT when it is its turn again.
    world.net.pod.sysctl("net/ipv4/ip_local_port_range", "10000 65500");
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    for pod in [POD_V4, POD_V6] {
        for _ in 0..200 {
            let port = world.visit(at(pod, 80)).peer.unwrap().port();
            assert!(port > 65_500, "{port}");
        }
    }
    assert_eq!(app.accepted(), 400);
}

#[test]
fn the_original_destination_is_reached_where_applications_may_use_every_port() {
    let world = World::new();
    world.net.pod.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    for _ in 0..20 {
        assert_eq!(world.visit(at(POD_V4, 80)).server, "app");
    }
}

#[test]
fn an_application_can_listen_on_a_port_that_the_relay_has_just_used() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    let port = world.visit(at(POD_V4, 80)).peer.unwrap().port();
    world.eventually_at_rest();
    let _late = Server::inside(&world.net.pod, "late", port);
    assert_eq!(world.answer(at(POD_V4, port)), "late");
    let stream = world.net.pod.enter(|| TcpStream::connect(at(POD_V4, 80))).unwrap();
    drop(stream);
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
}
