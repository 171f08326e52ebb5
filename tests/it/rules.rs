//! Which rule takes a connection, and what it does with it: by real traffic. That kernel and user space agree in
//! every case is in `model`.

use std::net::IpAddr;

use redirector_tests::{
    client::answer,
    server::Server,
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};

const LOOPBACK: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[test]
fn the_longer_prefix_then_the_fewer_ports_then_the_lesser_name_decides() {
    let world = World::new();
    let servers = ["any", "fewer", "net", "host", "host-one", "six", "b", "a"].map(Server::here);
    let rules = [
        ("any", "tcp:*"),
        ("fewer", "tcp:80-90"),
        ("net", "tcp:10.77.0.0/16:*"),
        ("host", "tcp:10.77.0.1:70-90"),
        ("host-one", "tcp:10.77.0.1:85"),
        ("six", "tcp:[fd77::/64]:80"),
        // Of equal rank: the name decides.
        ("b", "tcp:[fd77::1]:81"),
        ("a", "tcp:[fd77::1]:81"),
    ];
    // In the order of the table and against it: the order of attaching means nothing.
    for reverse in [false, true] {
        let mut order: Vec<_> = rules.iter().zip(&servers).collect();
        if reverse {
            order.reverse();
        }
        for ((name, matching), server) in order {
            world.steer(name, matching, &server.destination());
        }
        for (address, port, expected) in [
            (POD_V4, 85, "host-one"),
            (POD_V4, 84, "host"),
            (POD_V4, 70, "host"),
            (POD_V4, 69, "net"),
            (POD_V4, 91, "net"),
            (POD_V6, 80, "six"),
            (POD_V6, 81, "a"),
            (POD_V6, 82, "fewer"),
            (POD_V6, 79, "any"),
            (POD_V6, 91, "any"),
            (POD_V6, 65535, "any"),
            (POD_V6, 1, "any"),
        ] {
            assert_eq!(world.answer(at(address, port)), expected, "{address} port {port}");
        }
        assert_eq!(answer(&world.net.pod, at(LOOPBACK, 85)), "fewer");
        assert_eq!(answer(&world.net.pod, at(LOOPBACK, 91)), "any");
        world.detach();
    }
}

#[test]
fn reject_refuses_and_pass_leaves_the_application_and_each_is_counted() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = [80, 81, 82, 83].map(|port| Server::inside(&world.net.pod, "app", port));
    world.steer("rest", "tcp:*", &proxy.destination());
    world.steer("no", "tcp:80", "reject");
    world.steer("let", "tcp:81", "pass");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "refused");
        assert_eq!(world.answer(at(pod, 81)), "app");
        assert_eq!(world.answer(at(pod, 82)), "proxy");
    }
    for (rule, counter) in [("no", "rejected"), ("let", "passed"), ("rest", "steered")] {
        let rule = world.rule(rule);
        assert_eq!(count(&rule, &format!("/counters/{counter}")), 2, "{rule:#}");
        let others = ["steered", "passed", "rejected", "bypassed", "unavailable"];
        let sum: u64 = others.iter().map(|one| count(&rule, &format!("/counters/{one}"))).sum();
        assert_eq!(sum, 2, "{rule:#}");
    }
}

#[test]
fn what_no_rule_names_is_left_alone_and_counted() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("no", "tcp:81", "reject");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "app");
        assert_eq!(world.answer(at(pod, 82)), "refused");
    }
    assert_eq!(count(&world.pod(), "/counters/unmatched"), 4);
}

#[test]
fn a_rule_with_several_matches_takes_them_all_and_nothing_else() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.attach(&format!(
        "--name several --match tcp:10.77.0.1:80,82-83 --match tcp:[fd77::1]:443 --to {}",
        proxy.destination()
    ));
    for (address, port, expected) in [
        (POD_V4, 80, "proxy"),
        (POD_V4, 81, "refused"),
        (POD_V4, 82, "proxy"),
        (POD_V4, 83, "proxy"),
        (POD_V4, 84, "refused"),
        (POD_V4, 443, "refused"),
        (POD_V6, 443, "proxy"),
        (POD_V6, 80, "refused"),
    ] {
        assert_eq!(world.answer(at(address, port)), expected, "{address} port {port}");
    }
    let rule = world.rule("several");
    assert_eq!(rule["match"], serde_json::json!(["tcp:10.77.0.1:80,82-83", "tcp:[fd77::1]:443"]), "{rule:#}");
    assert_eq!(rule["origin"], "api", "{rule:#}");
}

#[test]
fn clients_inside_the_pod_are_steered_like_all_others() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("http", "tcp:80", &proxy.destination());
    for address in [POD_V4, POD_V6, LOOPBACK, IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)] {
        assert_eq!(answer(&world.net.pod, at(address, 80)), "proxy", "{address}");
    }
    // Not what goes elsewhere, though it comes from a steered namespace.
    let _outside = Server::inside(&world.net.client, "outside", 80);
    assert_eq!(answer(&world.net.pod, at(redirector_tests::topology::CLIENT_V4, 80)), "outside");
}

#[test]
fn udp_is_left_alone() {
    let world = World::new();
    world.steer("all", "tcp:*", "reject");
    let bind = |address: IpAddr, port| std::net::UdpSocket::bind(at(address, port)).unwrap();
    let server = world.net.pod.enter(|| bind(POD_V4, 5353));
    let client = world.net.client.enter(|| bind(redirector_tests::topology::CLIENT_V4, 0));
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(redirector_tests::HANG)).unwrap();
    }
    client.send_to(b"ping", at(POD_V4, 5353)).unwrap();
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"ping");
    server.send_to(b"pong", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from), (&b"pong"[..], at(POD_V4, 5353)));
}

#[test]
fn as_many_port_ranges_as_a_namespace_can_have_all_work() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    // 8 rules of 32 separate ports: 256 cells.
    for rule in 0..8 {
        let ports: Vec<_> = (0..32).map(|item| (1000 * (rule + 1) + item * 2).to_string()).collect();
        world.steer(&format!("rule{rule}"), &format!("tcp:{}", ports.join(",")), &proxy.destination());
    }
    for (port, expected) in
        [(1000, "proxy"), (1001, "refused"), (8062, "proxy"), (8063, "refused"), (8064, "refused")]
    {
        assert_eq!(world.answer(at(POD_V4, port)), expected, "port {port}");
    }
    let before = world.pod()["rules"].clone();
    let outcome =
        world.cli().run(&["attach", &world.target(), "--match", "tcp:1", "--to", &proxy.destination()]);
    redirector_tests::cli::error(&outcome, 1);
    let after = world.pod()["rules"].clone();
    assert_eq!(after.as_array().unwrap().len(), before.as_array().unwrap().len());
    assert_eq!(world.answer(at(POD_V4, 8062)), "proxy");
}
