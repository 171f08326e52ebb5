//! Which rule takes a connection, and what it does with it: by real traffic. That kernel and user space agree in
//! every case is in `model`.

use std::net::IpAddr;

use redirector_tests::{
    client::answer,
    server::Server,
    topology::{CLIENT_V4, CLIENT_V6, POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::json;

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
        let others = ["steered", "passed", "rejected", "dropped", "bypassed", "unavailable"];
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
fn rules_become_many_while_connections_come_and_all_of_them_work_and_count() {
    /// Past three sizes of what the program counts in, and as many of the image.
    const RULES: usize = 300;
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let port = |rule: usize| u16::try_from(1000 + 2 * rule).unwrap();
    for rule in 0..RULES {
        world.steer(&format!("rule{rule}"), &format!("tcp:{}", port(rule)), &proxy.destination());
        if rule % 50 == 0 {
            assert_eq!(world.answer(at(POD_V4, 1000)), "proxy", "with {rule} rules");
        }
    }
    for rule in [0, 1, RULES / 2, RULES - 1] {
        let port = port(rule);
        assert_eq!(world.answer(at(POD_V4, port)), "proxy", "port {port}");
        assert_eq!(world.answer(at(POD_V6, port)), "proxy", "port {port}");
        for pod in [POD_V4, POD_V6] {
            assert_eq!(world.answer(at(pod, port + 1)), "refused", "port {port}");
        }
    }
    // What was counted before there were so many is still counted.
    for (rule, steered) in [(0, 8), (1, 2), (RULES / 2, 2), (RULES - 1, 2)] {
        let rule = world.rule(&format!("rule{rule}"));
        assert_eq!(count(&rule, "/counters/steered"), steered, "{rule:#}");
    }
    assert_eq!(world.pod()["rules"].as_array().unwrap().len(), RULES);
}

#[test]
fn a_rule_takes_the_clients_that_it_names() {
    let (world, all, some) = (World::new(), Server::here("all"), Server::here("some"));
    world.steer("all", "tcp:80-90", &all.destination());
    let attached = world.attach(&format!(
        "--name some --match tcp:80-90 --from {CLIENT_V4} --from {CLIENT_V6} --to {}",
        some.destination()
    ));
    assert_eq!(attached["warnings"], json!([]), "the longer source prefix decides");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "some");
        assert_eq!(answer(&world.net.pod, at(pod, 80)), "all");
    }
    let rule = world.rule("some");
    assert_eq!((&rule["from"], count(&rule, "/counters/steered")), (&json!([CLIENT_V4, CLIENT_V6]), 2));
    // A prefix, with a destination.
    world.attach(&format!(
        "--name some --match tcp:{POD_V4}:80-90 --from 10.77.0.2/31 --to {}",
        some.destination()
    ));
    assert_eq!(world.answer(at(POD_V4, 80)), "some");
    assert_eq!(world.answer(at(POD_V6, 80)), "all");
    assert_eq!(answer(&world.net.pod, at(POD_V4, 80)), "all");
    let text = world.cli().run(&["list"]).success().stdout;
    assert!(text.contains("from 10.77.0.2/31"), "{text}");
}

#[test]
fn what_is_excepted_is_left_to_others() {
    let (world, proxy, rest) = (World::new(), Server::here("proxy"), Server::here("rest"));
    let _app = Server::inside(&world.net.pod, "app", 81);
    world.attach(&format!(
        "--name proxy --match tcp:80-85 --except tcp:81 --except tcp:{POD_V4}:82 --except tcp:[fd77::/64]:83 --to {}",
        proxy.destination()
    ));
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
        assert_eq!(world.answer(at(pod, 81)), "app");
        assert_eq!(world.answer(at(pod, 84)), "proxy");
    }
    assert_eq!(world.answer(at(POD_V4, 82)), "refused");
    assert_eq!(world.answer(at(POD_V6, 82)), "proxy");
    assert_eq!(world.answer(at(POD_V4, 83)), "proxy");
    assert_eq!(world.answer(at(POD_V6, 83)), "refused");
    assert_eq!(answer(&world.net.pod, at(LOOPBACK, 82)), "proxy");
    // Another rule takes it, though it comes later in the order.
    world.steer("rest", "tcp:*", &rest.destination());
    assert_eq!(world.answer(at(POD_V4, 82)), "rest");
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    let text = world.cli().run(&["list"]).success().stdout;
    assert!(text.contains("except tcp:81"), "{text}");
}

#[test]
fn the_higher_priority_decides_whatever_matches() {
    let world = World::new();
    let [low, usual, high] = ["low", "usual", "high"].map(Server::here);
    let priority = |name: &str, matching: &str, priority: &str, server: &Server| {
        world.attach(&format!(
            "--name {name} --match {matching} --priority {priority} --to {}",
            server.destination()
        ))
    };
    for pod in [POD_V4, POD_V6] {
        let host = if pod.is_ipv4() { format!("tcp:{pod}:80") } else { format!("tcp:[{pod}]:80") };
        priority("low", &host, "-1", &low);
        assert_eq!(world.answer(at(pod, 80)), "low");
        priority("usual", "tcp:80", "0", &usual);
        assert_eq!(world.answer(at(pod, 80)), "usual");
        priority("high", "tcp:*", "2147483647", &high);
        assert_eq!(world.answer(at(pod, 80)), "high");
        assert_eq!(priority("high", "tcp:*", "-2147483648", &high)["result"], "changed");
        assert_eq!(world.answer(at(pod, 80)), "usual");
        assert_eq!(world.answer(at(pod, 81)), "high");
        world.detach();
    }
}

#[test]
fn rules_that_cannot_be_compiled_are_refused_whole() {
    let (world, first) = (World::new(), Server::here("first"));
    let sources =
        |rule: usize| (0..64).map(|item| format!(" --from 10.{rule}.{item}.0/24")).collect::<String>();
    let matches = |rule: usize| {
        let ranges = (0..8).map(|item| 8 * rule + item);
        ranges
            .map(|range| format!(" --match tcp:10.0.0.0/8:{}-{}", 1 + range, 20_000 + range))
            .collect::<String>()
    };
    // One before all others: how they overlap does not matter.
    let attach = format!("--name first --match tcp:10.0.0.0/8:* --priority 1 --to {}", first.destination());
    world.attach(&attach);
    for rule in 0..32 {
        world.attach(&format!("--name other{rule} --to reject{}{}", matches(rule), sources(rule)));
    }
    assert_eq!(world.answer(at(POD_V4, 80)), "first");
    let before = world.pod()["rules"].clone();
    let target = world.target();
    let outcome = world.cli().run(&["detach", &target, "--rule", "first"]);
    redirector_tests::cli::error(&outcome, 1);
    assert!(outcome.stderr.contains(&target) && outcome.stderr.contains("overlap"), "{outcome}");
    assert!(outcome.stderr.contains("hint: "), "{outcome}");
    let lower = attach.replace("--priority 1", "--priority -1");
    let words: Vec<_> = ["attach", &target].into_iter().chain(lower.split_whitespace()).collect();
    let outcome = world.cli().run(&words);
    redirector_tests::cli::error(&outcome, 1);
    assert!(outcome.stderr.contains("`first`") && outcome.stderr.contains("overlap"), "{outcome}");
    let names = |rules: &serde_json::Value| {
        let rules = rules.as_array().expect("an array").iter();
        rules.map(|rule| (rule["name"].clone(), rule["priority"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&world.pod()["rules"]), names(&before));
    assert_eq!(world.answer(at(POD_V4, 80)), "first");
    world.detach();
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}
