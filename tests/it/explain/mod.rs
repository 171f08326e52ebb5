//! `redirector explain`: that it says what then happens, why, and that asking leaves no trace.

mod description;
mod generated;
mod shadow;
mod traffic;

use redirector_tests::{
    cli::error,
    features::Feature,
    http::{get, post},
    server::Server,
    topology::{CLIENT_V4, POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::{Value, json};

use crate::{
    foreign::{attach_foreign, detach_foreign},
    handoff, hostile,
};

/// What `explain` says of a flow, with further options.
#[track_caller]
fn explain_with(world: &World, flow: &str, options: &[&str]) -> Value {
    let target = world.target();
    world.cli().json(&[&["explain", &target, flow], options].concat())
}

#[track_caller]
fn explain(world: &World, flow: &str) -> Value {
    explain_with(world, flow, &[])
}

/// What it prints for people.
#[track_caller]
fn text(world: &World, flow: &str) -> String {
    world.cli().run(&["explain", &world.target(), flow]).success().stdout
}

/// Who decides on this kernel.
#[track_caller]
fn assert_decided(explanation: &Value) {
    if Feature::TestRun.is_here() {
        assert_eq!(explanation["decided_by"], json!({ "who": "kernel" }), "{explanation:#}");
    } else {
        let decided = &explanation["decided_by"];
        assert_eq!(decided["who"], "rule_set", "{explanation:#}");
        assert!(decided["why"].as_str().unwrap().contains("5.13"), "{explanation:#}");
    }
}

#[test]
fn it_names_rule_socket_and_reasons() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.attach("--name a --match tcp:10.77.0.9:80 --to reject");
    world.attach("--name b --match tcp:81 --priority 1 --to reject");
    world.attach("--name c --match tcp:80 --from 10.9.0.0/16 --to reject");
    world.attach("--name d --match tcp:80,90 --except tcp:90 --priority 2 --from 10.77.0.3 --to reject");
    world
        .attach("--name e --match tcp:80,90 --match tcp:90 --except tcp:10.77.0.1:80 --priority 3 --to pass");
    world.attach("--name f --match udp:80 --priority 4 --to pass");
    world.attach(&format!("--name http --match tcp:80 --from 10.77.0.0/24 --to {}", proxy.destination()));
    world.attach("--name rest --match tcp:* --to reject");
    let flow = "tcp 10.77.0.2:40000 -> 10.77.0.1:80";
    let explained = explain(&world, flow);
    assert_decided(&explained);
    for (pointer, expected) in [
        ("/verdict", json!("steer")),
        ("/flow", json!(flow)),
        ("/ingress/interface", json!("eth0")),
        ("/ingress/by", json!("assumed")),
        ("/fib/local", json!(true)),
        ("/fib/kernel", json!("local")),
        ("/rule/name", json!("http")),
        ("/rule/origin", json!("api")),
        ("/rule/to", json!([proxy.destination()])),
        ("/rule/state", json!("up")),
        ("/rule/cell", json!({ "match": "tcp:80", "from": "10.77.0.0/24" })),
        ("/rule/on_unavailable", json!({ "action": "reject", "decided": false })),
        ("/socket/what", json!("listener")),
        ("/socket/healthy", json!(true)),
        ("/socket/address", world.pod()["listeners"][0]["address"].clone()),
        ("/reasons_left_out", json!(0)),
        ("/foreign_programs", json!([])),
    ] {
        assert_eq!(explained.pointer(pointer), Some(&expected), "{pointer}: {explained:#}");
    }
    let reasons: Vec<_> = explained["reasons"].as_array().unwrap().iter().collect();
    let kinds: Vec<_> = reasons.iter().map(|one| (&one["rule"], &one["kind"])).collect();
    let expected = [("f", "protocol"), ("e", "exception"), ("d", "client"), ("b", "port"), ("a", "address")];
    let expected = expected.map(|(rule, kind)| (json!(rule), json!(kind)));
    assert_eq!(kinds, expected.iter().map(|(rule, kind)| (rule, kind)).collect::<Vec<_>>(), "{explained:#}");
    let text = text(&world, flow);
    let first = text.lines().next().unwrap();
    let listener = world.pod()["listeners"][0]["address"].as_str().unwrap().to_owned();
    assert_eq!(first, format!("steered by rule http to {} (listener {listener})", proxy.destination()));
    assert!(text.contains("e: its exception `tcp:10.77.0.1:80` leaves it out"), "{text}");
    // Several words are as good as one.
    let words = ["explain", &world.target(), "tcp", "10.77.0.2:40000", "->", "10.77.0.1:80"];
    assert_eq!(world.cli().json(&words), explained);
}

#[test]
fn twenty_reasons_are_enough_unless_all_are_asked_for() {
    let world = World::new();
    for number in 0..25 {
        world.attach(&format!("--name r{number:02} --match tcp:{} --to reject", 100 + number));
    }
    let flow = "tcp 10.77.0.2:40000 -> 10.77.0.1:80";
    let explained = explain(&world, flow);
    assert_eq!(explained["verdict"], "unmatched");
    assert_eq!(explained["reasons"].as_array().unwrap().len(), 20);
    assert_eq!(explained["reasons_left_out"], 5);
    assert!(text(&world, flow).contains("5 more rules; --all-reasons has them"));
    let explained = explain_with(&world, flow, &["--all-reasons"]);
    assert_eq!(explained["reasons"].as_array().unwrap().len(), 25);
    assert_eq!(explained["reasons_left_out"], 0);
}

#[test]
fn what_is_not_delivered_there_never_reaches_steering() {
    let world = World::new();
    world.steer("all", "any:*", "reject");
    world.net.pod.sysctl("net/ipv4/conf/all/rp_filter", "1");
    for (flow, kernel) in [
        ("tcp 10.77.0.2:1 -> 10.77.0.9:80", "EHOSTUNREACH"),
        ("tcp 10.77.0.2:1 -> 10.77.0.255:80", "broadcast"),
        ("udp 10.77.0.2:1 -> 10.77.0.255:80 dev eth0", "broadcast"),
        ("tcp [fd77::2]:1 -> [fd77::9]:80", "unicast"),
        ("tcp [fd77::2]:1 -> [fd99::9]:80", "ENETUNREACH"),
        ("tcp 10.77.0.1:1 -> 10.77.0.9:80", "unicast"),
        // Martians.
        ("tcp 10.77.0.1:1 -> 10.77.0.1:80 dev eth0", "own_source"),
        ("tcp 127.0.0.1:1 -> 10.77.0.1:80 dev eth0", "own_source"),
        ("tcp 127.0.0.9:1 -> 10.77.0.1:80 dev eth0", "own_source"),
        ("tcp 10.77.0.2:1 -> 127.0.0.1:80 dev eth0", "EINVAL"),
        ("tcp 10.99.0.2:1 -> 10.77.0.1:80 dev eth0", "rp_filter"),
        ("tcp [::1]:1 -> [fd77::1]:80 dev eth0", "loopback"),
        ("tcp [fd77::2]:1 -> [::1]:80 dev eth0", "loopback"),
        ("tcp 10.77.0.2:1 -> 10.77.0.1:80 dev lo", "foreign_source"),
        ("tcp [fd77::2]:1 -> [fd77::1]:80 dev lo", "foreign_source"),
    ] {
        let explained = explain(&world, flow);
        assert_eq!(explained["verdict"], "unreached", "{flow}: {explained:#}");
        assert_eq!(explained["fib"]["local"], false, "{flow}: {explained:#}");
        assert_eq!(explained["fib"]["kernel"], kernel, "{flow}: {explained:#}");
        assert!(explained.get("rule").is_none() && explained.get("decided_by").is_none(), "{explained:#}");
        assert!(text(&world, flow).starts_with("never reaches steering: "), "{flow}");
    }
    world.net.pod.ip("address add 192.0.2.1/32 dev lo");
    for (flow, interface, by) in [
        ("tcp 10.77.0.2:1 -> 10.77.0.1:80", "eth0", "assumed"),
        ("tcp 10.77.0.2:1 -> 10.77.0.1:80 dev eth0", "eth0", "named"),
        ("tcp [fd77::2]:1 -> [fd77::1]:80", "eth0", "assumed"),
        ("tcp 10.77.0.2:1 -> 192.0.2.1:80", "eth0", "assumed"),
        ("tcp 10.77.0.1:1 -> 10.77.0.1:80", "eth0", "inside"),
        ("tcp 127.0.0.1:1 -> 10.77.0.1:80", "eth0", "inside"),
        ("tcp [fd77::1]:1 -> [fd77::1]:80 dev lo", "eth0", "named"),
        ("tcp 10.77.0.1:1 -> 192.0.2.1:80", "lo", "inside"),
        ("udp 127.0.0.1:1 -> 127.0.0.1:80", "lo", "inside"),
        ("udp [::1]:1 -> [::1]:80", "lo", "inside"),
    ] {
        let explained = explain(&world, flow);
        assert_eq!(explained["verdict"], "reject", "{flow}: {explained:#}");
        assert_eq!(explained["ingress"]["interface"], interface, "{flow}: {explained:#}");
        assert_eq!(explained["ingress"]["by"], by, "{flow}: {explained:#}");
    }
}

#[test]
fn wrong_questions_say_what_is_wrong() {
    let world = World::new();
    let target = world.target();
    let good = "tcp 10.77.0.2:1 -> 10.77.0.1:80";
    let ask = |target: &str, words: &[&str], code| {
        error(&world.cli().run(&[&["explain", target], words].concat()), code)
    };
    assert!(ask(&target, &[good], 3).contains("not steered"));
    assert!(ask(&target, &["--shadowed"], 3).contains("not steered"));
    assert!(ask("netns:rdt-none", &[good], 3).contains("rdt-none"));
    world.steer("http", "tcp:80", "reject");
    let before = world.list();
    for (flow, part) in [
        ("", "no `->`"),
        ("tcp 224.0.0.1:1 -> 10.77.0.1:80", "of a group"),
        ("udp [ff02::1]:1 -> [fd77::1]:80 dev eth0", "of a group"),
        ("tcp 10.77.0.2:1 10.77.0.1:80", "no `->`"),
        ("any 10.77.0.2:1 -> 10.77.0.1:80", "write `tcp` or `udp`"),
        ("tcp 10.77.0.2 -> 10.77.0.1:80", "write `10.77.0.2:PORT`"),
        ("tcp 10.77.0.2:1 -> 10.77.0.1:0", "no port 0"),
        ("tcp fd77::2:1 -> [fd77::1]:80", "write `[fd77::2]:1`"),
        ("tcp 10.77.0.2:1 -> [fd77::1]:80", "one family"),
        ("tcp 10.77.0.2:1 -> 10.77.0.1:80 dev a/b", "interface `a/b`"),
        ("tcp 10.77.0.2:1 -> 10.77.0.1:80 eth0", "dev NAME"),
        ("tcp 10.77.0.2:1 -> 10.77.0.1:80\u{7}", "is not a port"),
    ] {
        let said = ask(&target, &[flow], 2);
        assert!(said.contains(part), "{flow}: {said}");
        let body = json!({ "target": target, "flow": flow }).to_string();
        let answer = post(world.daemon.socket(), "/v1/explain", &body);
        assert_eq!((answer.status, &answer.body["error"]["code"]), (400, &json!("usage")), "{answer:#?}");
    }
    let outcome = world.cli().run(&["explain", &target, &format!("{good} dev eth7")]);
    assert!(error(&outcome, 1).contains("`eth7`") && outcome.stderr.contains("lo, eth0"), "{outcome}");
    let outcome = world.cli().run(&["explain", &target, "tcp 192.0.2.1:1 -> 10.77.0.1:80"]);
    assert!(error(&outcome, 1).contains("192.0.2.1") && outcome.stderr.contains("dev NAME"), "{outcome}");
    ask(&target, &[], 2);
    ask(&target, &[good, "--shadowed"], 2);
    let answer = get(world.daemon.socket(), "/v1/shadowed");
    assert_eq!(answer.status, 400, "{answer:#?}");
    assert_eq!(world.list(), before);
}

#[test]
fn asking_is_not_counted_and_leaves_nothing() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    world.steer("silent", "any:81", "drop");
    world.steer("no", "any:82", "reject");
    let (before, fds) = (world.list(), world.daemon.fds_at_rest());
    let programs = redirector::kernel::attached_programs(std::os::fd::AsFd::as_fd(&world.net.pod.open()));
    for port in 80..84 {
        for protocol in ["tcp", "udp"] {
            for ends in ["10.77.0.2:1 -> 10.77.0.1", "[fd77::2]:1 -> [fd77::1]"] {
                assert_decided(&explain(&world, &format!("{protocol} {ends}:{port}")));
            }
        }
    }
    assert_eq!(world.list(), before);
    world.daemon.eventually_has_fds(fds);
    let now = redirector::kernel::attached_programs(std::os::fd::AsFd::as_fd(&world.net.pod.open()));
    assert_eq!(now.unwrap(), programs.unwrap());
}

#[test]
fn a_hand_off_is_named_by_its_holder_and_a_kernel_that_refuses_is_replaced() {
    let world = World::new();
    let listeners = handoff::ask(&world, "tcp:80", "lease");
    let flow = "tcp 10.77.0.2:40000 -> 10.77.0.1:80";
    let explained = explain(&world, flow);
    assert_decided(&explained);
    assert_eq!(explained["rule"]["origin"], "lease", "{explained:#}");
    assert_eq!(explained["socket"]["what"], "hand_off", "{explained:#}");
    assert_eq!(explained["socket"]["pid"], std::process::id(), "{explained:#}");
    // Of a socket that shares its port a test run tells nothing.
    for listener in &listeners {
        listener.set_reuse_port(true).expect("SO_REUSEPORT");
    }
    let again = explain(&world, flow);
    assert_eq!(again["decided_by"]["who"], "rule_set", "{again:#}");
    for field in ["verdict", "rule", "socket", "reasons"] {
        assert_eq!(again[field], explained[field], "{again:#}");
    }
    assert!(text(&world, flow).contains("by the rule set, not by the kernel"));
    drop(listeners);
    let gone = explain(&world, flow);
    assert_eq!(gone["verdict"], "reject", "{gone:#}");
    assert_eq!(
        gone["rule"]["on_unavailable"],
        json!({ "action": "reject", "decided": true, "reason": "ENOENT" }),
        "{gone:#}"
    );
}

#[test]
fn what_is_unavailable_or_amiss_is_said() {
    let world = World::new();
    world.attach("--name gone --match tcp:80 --to unix:/nowhere.sock --on-unavailable drop");
    let flow = "tcp 10.77.0.2:40000 -> 10.77.0.1:80";
    assert_eq!(explain(&world, flow)["verdict"], "steer");
    for _ in 0..3 {
        assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    }
    let explained = redirector_tests::eventually::eventually("it is down", super::SECOND, || {
        let explained = explain(&world, flow);
        if explained["verdict"] == "drop" { Ok(explained) } else { Err(explained) }
    });
    assert_eq!(explained["rule"]["state"], "down", "{explained:#}");
    assert_eq!(explained["rule"]["on_unavailable"]["reason"], "down", "{explained:#}");
    assert_eq!(explained["socket"]["what"], "black_hole", "{explained:#}");
    assert!(text(&world, flow).starts_with("dropped by rule gone, which is unavailable (down)"));
}

#[test]
fn redirectors_own_connections_pass() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("web", "tcp:80", "original");
    let (open, name) = world.open(at(POD_V4, 80));
    assert_eq!(name, "app");
    let sockets = world.net.pod.must("ss", &["-Htn", "state", "established", "dport", "=", ":80"]).stdout;
    let mut ends = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let own = ends.find(|ends| ends[2].starts_with("10.77.0.1:") && ends[3] == "10.77.0.1:80");
    let own = own.unwrap_or_else(|| panic!("{sockets}"))[2].to_owned();
    let flow = format!("tcp {own} -> 10.77.0.1:80");
    let explained = explain(&world, &flow);
    assert_eq!(explained["verdict"], "pass", "{explained:#}");
    assert_eq!(explained["bypassed"], true, "{explained:#}");
    assert_eq!(explained["rule"]["name"], "web", "{explained:#}");
    assert!(text(&world, &flow).starts_with("passed: it is redirector's own connection"));
    let other = explain(&world, "tcp 10.77.0.1:9 -> 10.77.0.1:80");
    assert_eq!(other["verdict"], "steer", "{other:#}");
    drop(open);
}

#[test]
fn programs_of_others_are_named_with_what_they_could_do() {
    let world = World::new();
    let before = attach_foreign(&world, json!({ "match": ["tcp:9"], "to": ["pass"] }));
    world.steer("no", "tcp:80", "reject");
    world.steer("app", "tcp:81", "pass");
    let after = attach_foreign(&world, json!({ "match": ["tcp:9"], "to": ["pass"] }));
    for (port, could) in
        [(80, "in spite of our refusal"), (81, "refuse the packet"), (82, "refuse the packet")]
    {
        let explained = explain(&world, &format!("tcp {CLIENT_V4}:1 -> {POD_V4}:{port}"));
        for (number, (program, runs)) in [(&before, "before"), (&after, "after")].into_iter().enumerate() {
            let foreign = &explained["foreign_programs"][number];
            assert_eq!(foreign["id"], program.program_id().unwrap(), "{explained:#}");
            assert_eq!((&foreign["name"], &foreign["runs"]), (&json!("foreign"), &json!(runs)));
            assert!(foreign["could"].as_str().unwrap().contains(could), "{explained:#}");
        }
    }
    assert!(text(&world, "tcp 10.77.0.2:1 -> 10.77.0.1:80").contains("`foreign` runs before ours"));
    detach_foreign(&world, before);
    detach_foreign(&world, after);
}

#[test]
fn a_listener_that_was_killed_is_unhealthy_until_it_is_revived() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    let address = world.pod()["listeners"][1]["address"].as_str().unwrap().parse().unwrap();
    let flow = format!("tcp [fd77::2]:1 -> [{POD_V6}]:80");
    assert_eq!(explain(&world, &flow)["socket"]["healthy"], true);
    world.daemon.signal(nix::sys::signal::Signal::SIGSTOP);
    hostile::kill_listener(&world, address);
    world.daemon.signal(nix::sys::signal::Signal::SIGCONT);
    redirector_tests::eventually::eventually("it is revived", super::SECOND, || {
        let explained = explain(&world, &flow);
        let is_well = explained["verdict"] == "steer" && explained["socket"]["healthy"] == true;
        // Until then it is what its rule says of that.
        let is_amiss = explained["rule"]["on_unavailable"]["reason"] == "ESOCKTNOSUPPORT";
        assert!(is_well || is_amiss, "{explained:#}");
        if is_well { Ok(()) } else { Err(explained) }
    });
    assert!(count(&world.pod(), "/drift/listeners_revived") > 0);
}

#[test]
fn what_is_down_and_what_is_redirectors_own_is_said() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("all", "tcp:*", &proxy.destination());
    let pod = world.pod();
    let own = pod["listeners"][0]["address"].as_str().unwrap().to_owned();
    let flow = format!("tcp 127.0.0.1:40000 -> {own}");
    let said = explain(&world, &flow);
    assert_eq!((&said["verdict"], &said["own_listener"]), (&json!("steer"), &json!(true)), "{said:#}");
    assert!(text(&world, &flow).starts_with("reset: its destination is redirector's own listener"));
    assert_eq!(redirector_tests::client::answer(&world.net.pod, own.parse().unwrap()), "reset");
    world.eventually("it is counted", "/connections/failed/own_listener", |count| count == 1);
    // What is sent inside needs `lo`, whatever address it is for.
    let inside = format!("tcp {POD_V4}:40000 -> {POD_V4}:80");
    assert_eq!(explain(&world, &inside)["verdict"], "steer");
    world.net.pod.ip("link set lo down");
    let said = explain(&world, &inside);
    assert_eq!((&said["verdict"], &said["fib"]["kernel"]), (&json!("unreached"), &json!("down")), "{said:#}");
    assert_eq!(explain(&world, &format!("tcp {CLIENT_V4}:40000 -> {POD_V4}:80"))["verdict"], "steer");
}
