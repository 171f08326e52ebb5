//! Every way to name a namespace, and that two names of one are one.

use redirector_tests::{
    cli::{Cli, document, error},
    client::answer,
    daemon::Daemon,
    netns::Netns,
    server::Server,
    topology::{POD_V4, POD_V6, Topology, at},
    world::World,
};
use serde_json::json;

#[track_caller]
fn attach(cli: &Cli, target: &str, to: &Server) -> serde_json::Value {
    cli.json(&["attach", target, "--match", "tcp:80", "--to", &to.destination()])
}

#[track_caller]
fn assert_steered(net: &Topology) {
    for pod in [POD_V4, POD_V6] {
        assert_eq!(answer(&net.client, at(pod, 80)), "proxy");
    }
}

#[test]
fn a_namespace_can_be_named_by_ip_netns_by_path_and_by_process() {
    let (daemon, proxy) = (Daemon::start(), Server::here("proxy"));
    let named = Topology::new();
    let by_path = Topology::new();
    let of_process = Topology::around(Netns::of_process());
    let targets = [
        (&named, named.pod.target()),
        (&by_path, format!("path:{}", by_path.pod.path().display())),
        (&of_process, of_process.pod.target()),
    ];
    for (net, target) in &targets {
        let answer = attach(&daemon.cli(), target, &proxy);
        assert_eq!(answer["target"], **target, "{answer:#}");
        assert_eq!(answer["cookie"], net.pod.cookie(), "{answer:#}");
        assert_steered(net);
        let list = daemon.cli().json(&["list", target]);
        assert_eq!(list["namespaces"][0]["target"], **target, "{list:#}");
        assert_eq!(list["namespaces"][0]["inode"], net.pod.inode(), "{list:#}");
    }
    let list = daemon.cli().json(&["list"]);
    assert_eq!(list["namespaces"].as_array().unwrap().len(), 3, "{list:#}");
    for (net, target) in &targets {
        daemon.cli().json(&["detach", target]);
        assert_eq!(answer(&net.client, at(POD_V4, 80)), "refused");
    }
}

#[test]
fn self_is_the_namespace_of_who_asks() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let outcome = world.cli().run_in(
        &world.net.pod,
        &["attach", "self", "--match", "tcp:80", "--to", &proxy.destination(), "--json"],
    );
    let answer = document(&outcome.success());
    assert_eq!(answer["cookie"], world.net.pod.cookie(), "{answer:#}");
    assert_steered(&world.net);
    let outcome = world.cli().run_in(&world.net.pod, &["list", "self", "--json"]).success();
    assert_eq!(document(&outcome)["namespaces"][0]["cookie"], world.net.pod.cookie());
    // Another namespace's `self` is another.
    error(&world.cli().run_in(&world.net.client, &["list", "self"]), 3);
    error(&world.cli().run_in(&world.net.client, &["detach", "self"]), 3);
    world.cli().run_in(&world.net.pod, &["detach", "self"]).success();
    assert_eq!(world.list()["namespaces"], json!([]));
}

#[test]
fn a_steered_namespace_can_be_named_by_its_cookie() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let cookie = format!("cookie:{}", world.net.pod.cookie());
    let outcome = world.cli().run(&["attach", &cookie, "--match", "tcp:80", "--to", "original"]);
    assert!(error(&outcome, 3).contains(&cookie), "only one that is steered already{outcome}");
    world.steer("one", "tcp:81", &proxy.destination());
    attach(&world.cli(), &cookie, &proxy);
    assert_steered(&world.net);
    let list = world.cli().json(&["list", &cookie]);
    assert_eq!(list["namespaces"][0]["rules"].as_array().unwrap().len(), 2, "{list:#}");
    world.cli().json(&["detach", &cookie]);
    error(&world.cli().run(&["list", &cookie]), 3);
}

#[test]
fn two_targets_of_one_namespace_are_one_namespace() {
    let (daemon, proxy) = (Daemon::start(), Server::here("proxy"));
    let net = Topology::around(Netns::of_process());
    let named = net.pod.with_a_name();
    let targets = [net.pod.target(), named.target(), format!("path:{}", named.path().display())];
    let cli = daemon.cli();
    for (number, target) in targets.iter().enumerate() {
        let port = format!("tcp:{}", 80 + number);
        let answer = cli.json(&["attach", target, "--match", &port, "--to", &proxy.destination()]);
        assert_eq!(answer["rule"], format!("rule-{}", number + 1), "{answer:#}");
        assert_eq!(answer["cookie"], net.pod.cookie(), "{answer:#}");
    }
    let list = cli.json(&["list"]);
    assert_eq!(list["namespaces"].as_array().unwrap().len(), 1, "{list:#}");
    assert_eq!(list["namespaces"][0]["rules"].as_array().unwrap().len(), 3, "{list:#}");
    for target in &targets {
        assert_eq!(cli.json(&["list", target])["namespaces"], list["namespaces"]);
    }
    for port in 80..83 {
        assert_eq!(answer(&net.client, at(POD_V4, port)), "proxy");
    }
    let answer = cli.json(&["detach", &targets[2]]);
    assert_eq!(answer["rules"], json!(["rule-1", "rule-2", "rule-3"]), "{answer:#}");
    assert_eq!(cli.json(&["list"])["namespaces"], json!([]));
}

#[test]
fn twenty_namespaces_are_steered_apart_by_one_daemon() {
    let daemon = Daemon::start();
    let worlds: Vec<_> =
        (0..20).map(|number| (Topology::new(), Server::here(&format!("server-{number}")))).collect();
    for (net, server) in &worlds {
        attach(&daemon.cli(), &net.pod.target(), server);
    }
    for (number, (net, server)) in worlds.iter().enumerate() {
        for pod in [POD_V4, POD_V6] {
            assert_eq!(answer(&net.client, at(pod, 80)), format!("server-{number}"));
        }
        assert_eq!(server.accepted(), 2);
    }
    let list = daemon.cli().json(&["list"]);
    assert_eq!(list["namespaces"].as_array().unwrap().len(), 20);
}

#[test]
fn the_host_namespace_needs_to_be_meant() {
    // The daemon in a namespace of its own, so that nothing of this machine is ever steered. It is the host's
    // for this daemon: the one it lives in.
    let net = Topology::new();
    let daemon = net.pod.enter(Daemon::start);
    let target = net.pod.target();
    let outcome = daemon.cli().run(&["attach", &target, "--match", "tcp:80", "--to", "original"]);
    let said = error(&outcome, 1);
    assert!(said.contains(&target), "{outcome}");
    assert!(outcome.stderr.contains("--host-netns"), "must hint at the option{outcome}");
    assert_eq!(daemon.cli().json(&["list"])["namespaces"], json!([]));

    let app = Server::inside(&net.pod, "app", 80);
    let proxy = Server::inside(&net.pod, "proxy", 8080);
    // To the daemon's own namespace, which is steered, at a port that is steered too: no loop.
    for to in ["original", "127.0.0.1:8080", "10.77.0.1:8080", "[::1]:8080"] {
        let words = ["attach", &target, "--name", "host", "--match", "tcp:*", "--to", to, "--host-netns"];
        daemon.cli().json(&words);
        for pod in [POD_V4, POD_V6] {
            let expected = if to == "original" { "app" } else { "proxy" };
            assert_eq!(answer(&net.client, at(pod, 80)), expected, "{to}");
            assert_eq!(answer(&net.pod, at(pod, 80)), expected, "{to}");
        }
    }
    assert_eq!(app.accepted(), 4);
    assert_eq!(proxy.accepted(), 12);
    daemon.cli().json(&["detach", &target]);
}
