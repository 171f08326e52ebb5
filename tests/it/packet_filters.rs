//! Packet filters of a namespace beside its rules: `explain` and `list` say what they do not know.

use std::net::{IpAddr, SocketAddr};

use redirector_tests::{
    client::Conversation,
    server::Server,
    topology::{CLIENT_V4, CLIENT_V6, PAIRS, POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::{Value, json};

/// A client's flow to a port of the pod.
fn flow(pod: IpAddr, port: u16) -> String {
    let client = if pod.is_ipv4() { CLIENT_V4 } else { CLIENT_V6 };
    format!("tcp {} -> {}", at(client, 40_000), at(pod, port))
}

fn explain(world: &World, flow: &str) -> (Value, String) {
    let document = world.cli().json(&["explain", &world.target(), flow]);
    let text = world.cli().run(&["explain", &world.target(), flow]).success().stdout;
    (document, text)
}

/// The lines of what was not run.
fn not_run(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix("not run")).map(str::trim).collect()
}

fn nft(world: &World, ruleset: &str) {
    world.net.pod.must("nft", &[ruleset]);
}

/// A client whose SYN gets no answer.
fn unanswered(world: &World, to: SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let silence = std::time::Duration::from_millis(50);
    let connected = world.net.client.enter(|| {
        Socket::new(Domain::for_address(to), Type::STREAM, None)?.connect_timeout(&to.into(), silence)
    });
    assert!(connected.is_err(), "{to}: {connected:?}");
}

#[test]
fn a_namespace_without_packet_filters_has_nothing_that_was_not_run() {
    let world = World::new();
    world.steer("all", "tcp:*", "reject");
    for (pod, _) in PAIRS {
        let (document, text) = explain(&world, &flow(pod, 80));
        let nothing = json!({ "base_chains": [], "base_chains_left_out": 0, "legacy_tables": [] });
        assert_eq!(document["netfilter"], nothing, "{document:#}");
        assert_eq!(not_run(&text), Vec::<&str>::new(), "{text}");
    }
}

#[test]
fn a_chain_that_drops_what_is_said_to_be_steered_is_named_with_its_hook() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    nft(
        &world,
        "table inet guard { chain in { type filter hook input priority -7; policy drop; tcp dport 22 accept; \
         meta nfproto ipv6 drop; }; chain helper { tcp dport 1 drop; }; }",
    );
    for (pod, _) in PAIRS {
        let (document, text) = explain(&world, &flow(pod, 80));
        assert_eq!(document["verdict"], "steer", "{document:#}");
        let chains = document["netfilter"]["base_chains"].as_array().unwrap();
        let [chain] = &chains[..] else { panic!("{document:#}") };
        for (key, value) in [
            ("family", json!("inet")),
            ("table", json!("guard")),
            ("chain", json!("in")),
            ("type", json!("filter")),
            ("hook", json!("input")),
            ("priority", json!(-7)),
            ("policy", json!("drop")),
            ("rules", json!(2)),
        ] {
            assert_eq!(chain[key], value, "{key}: {document:#}");
        }
        assert!(chain["could"].as_str().unwrap().contains("drop the packet before steering"), "{chain:#}");
        let [line] = not_run(&text)[..] else { panic!("{text}") };
        assert!(
            line.starts_with(
                "nf_tables chain inet guard in (type filter, hook input, priority -7, policy drop, 2 rules)"
            ),
            "{line}"
        );
        unanswered(&world, at(pod, 80));
    }
    // It was never asked.
    assert_eq!(count(&world.rule("http"), "/counters/steered"), 0);
}

#[test]
fn chains_of_each_family_and_hook_are_told_and_those_of_the_other_ip_are_not_in_the_way() {
    let world = World::new();
    world.steer("all", "tcp:*", "reject");
    nft(
        &world,
        "table ip four { chain pre { type nat hook prerouting priority dstnat; }; chain out { type filter hook output priority 0; }; }; \
         table ip6 six { chain post { type nat hook postrouting priority srcnat; }; }; \
         table netdev dev { chain in { type filter hook ingress device eth0 priority 5; }; }; \
         table bridge br { chain fw { type filter hook forward priority 0; }; }; \
         table arp a { chain in { type filter hook input priority 0; }; }",
    );
    let (document, text) = explain(&world, &flow(POD_V4, 80));
    let chains = document["netfilter"]["base_chains"].as_array().unwrap();
    let mut hooks: Vec<_> = chains
        .iter()
        .map(|one| format!("{} {}", one["family"].as_str().unwrap(), one["hook"].as_str().unwrap()))
        .collect();
    hooks.sort();
    let all =
        ["arp input", "bridge forward", "ip output", "ip prerouting", "ip6 postrouting", "netdev ingress"];
    assert_eq!(hooks, all, "{document:#}");
    let dev = chains.iter().find(|one| one["family"] == "netdev").unwrap();
    assert_eq!((&dev["devices"], &dev["priority"]), (&json!(["eth0"]), &json!(5)), "{dev:#}");
    assert!(!text.contains("ip6 six") && text.contains("ip four out") && text.contains("on eth0"), "{text}");
    let (_, text) = explain(&world, &flow(POD_V6, 80));
    assert!(text.contains("ip6 six") && !text.contains("ip four") && !text.contains("arp a in"), "{text}");
    // Many are bounded.
    let many: String = (0..30)
        .map(|number| format!("add chain ip four c{number} {{ type filter hook input priority {number}; }};"))
        .collect();
    nft(&world, &many);
    let (document, text) = explain(&world, &flow(POD_V4, 80));
    assert_eq!(document["netfilter"]["base_chains"].as_array().unwrap().len(), 36);
    assert!(not_run(&text).len() < 25 && text.contains("more chains of nf_tables"), "{text}");
}

#[test]
fn a_chain_that_sends_packets_elsewhere_is_told() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 81);
    world.steer("http", "tcp:80", &proxy.destination());
    for (verb, to) in [("redirect", ":81"), ("dnat", "10.77.0.1:81")] {
        nft(
            &world,
            &format!(
                "table ip n {{ chain pre {{ type nat hook prerouting priority dstnat; tcp dport 80 {verb} to {to}; }}; }}"
            ),
        );
        // The rule is never asked about port 80.
        assert_eq!(world.answer(at(POD_V4, 80)), "app", "{verb}");
        assert_eq!(count(&world.rule("http"), "/counters/steered"), 0, "{verb}");
        let (document, text) = explain(&world, &flow(POD_V4, 80));
        assert_eq!(document["verdict"], "steer", "{document:#}");
        let [line] = not_run(&text)[..] else { panic!("{text}") };
        assert!(line.contains("hook prerouting") && line.contains("DNAT, REDIRECT"), "{line}");
        nft(&world, "delete table ip n");
    }
}

#[test]
fn a_connection_that_tproxy_has_given_to_the_listener_is_of_no_rule_and_that_is_said() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("proxied", "tcp:8080", &proxy.destination());
    nft(
        &world,
        "table ip t { chain pre { type filter hook prerouting priority mangle; tcp dport 80 tproxy to :8080 accept; }; }",
    );
    assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    let pod = world.eventually("it is counted", "/connections/failed/unattributed", |count| *count == 1);
    let rule = &pod["rules"][0];
    assert_eq!((&rule["counters"]["steered"], &rule["accepted"]), (&json!(1), &json!(0)), "{pod:#}");
    let list = world.cli().run(&["list"]).success().stdout;
    assert!(list.contains("no rule in force takes it 1"), "{list}");
    assert!(
        list.contains("1 were accepted, and no rule in force takes it: likely a packet filter"),
        "{list}"
    );
    assert!(list.contains("of 1 look-ups that it steered none was accepted"), "{list}");
    let (_, text) = explain(&world, &flow(POD_V4, 8080));
    assert!(not_run(&text).iter().any(|line| line.contains("TPROXY")), "{text}");
    assert!(text.contains("of 1 look-ups that rule proxied steered 0 were accepted"), "{text}");
}

#[test]
fn a_filter_that_looks_up_by_itself_makes_two_lookups_of_one_connection() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    nft(
        &world,
        "table ip s { chain pre { type filter hook prerouting priority mangle; tcp dport 80 socket transparent 1 counter; }; }",
    );
    for _ in 0..3 {
        assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    }
    let rule = world.rule("http");
    assert_eq!(rule["accepted"], 3, "{rule:#}");
    assert!(count(&rule, "/counters/steered") >= 6, "{rule:#}");
    let list = world.cli().run(&["list"]).success().stdout;
    assert!(list.contains("3 were accepted; likely") && list.contains("`socket`"), "{list}");
    let (document, text) = explain(&world, &flow(POD_V4, 80));
    assert_eq!(document["rule"]["accepted"], 3, "{document:#}");
    assert!(not_run(&text).iter().any(|line| line.contains("`socket`")), "{text}");
}

#[test]
fn a_filter_that_drops_the_answers_leaves_what_is_steered_unaccepted() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    nft(&world, "table inet o { chain out { type filter hook output priority 0; tcp sport 80 drop; }; }");
    unanswered(&world, at(POD_V6, 80));
    let rule = world.rule("http");
    assert_eq!(rule["accepted"], 0, "{rule:#}");
    assert!(count(&rule, "/counters/steered") > 0, "{rule:#}");
    let (_, text) = explain(&world, &flow(POD_V6, 80));
    assert!(not_run(&text).iter().any(|line| line.contains("drop the answer")), "{text}");
    assert!(text.contains("a packet filter that drops the answers"), "{text}");
}

/// The tables of legacy iptables that the kernel tells of.
fn legacy_tables(world: &World, file: &str) -> Vec<String> {
    let path = format!("/proc/thread-self/net/{file}");
    let names = world.net.pod.enter(|| std::fs::read_to_string(&path)).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

#[test]
fn tables_of_legacy_iptables_are_told_where_the_kernel_has_them() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    for (program, family, file, (pod, _)) in [
        ("iptables-legacy", "ipv4", "ip_tables_names", PAIRS[0]),
        ("ip6tables-legacy", "ipv6", "ip6_tables_names", PAIRS[1]),
    ] {
        let rule = ["-w", "-A", "INPUT", "-p", "tcp", "--dport", "80", "-j", "DROP"];
        let drops = world.net.pod.run(program, &rule).status.success();
        let there = legacy_tables(&world, file);
        assert_eq!(drops, drops && there.contains(&"filter".to_owned()), "{there:?}");
        let (document, text) = explain(&world, &flow(pod, 80));
        assert_eq!(document["verdict"], "steer", "{document:#}");
        let told = document["netfilter"]["legacy_tables"].as_array().unwrap().iter();
        let told: Vec<_> =
            told.filter(|one| one["family"] == family).map(|one| one["table"].clone()).collect();
        assert_eq!(told, there, "{document:#}");
        assert_eq!(not_run(&text).len(), there.len(), "{text}");
        if drops {
            let name = program.trim_end_matches("-legacy");
            let line = format!(
                "legacy {name} table filter, if it holds rules: it can drop the packet before steering"
            );
            assert!(not_run(&text).iter().any(|one| one.starts_with(&line)), "{text}");
            unanswered(&world, at(pod, 80));
        }
    }
}

#[test]
fn what_netfilter_there_is_does_not_keep_explain_from_telling_what_never_reaches_steering() {
    let world = World::new();
    world.steer("all", "tcp:*", "reject");
    nft(&world, "table ip t { chain pre { type filter hook prerouting priority mangle; policy accept; }; }");
    let flow = "tcp 10.77.0.2:1 -> 10.77.0.9:80";
    let (document, text) = explain(&world, flow);
    assert_eq!(document["verdict"], "unreached", "{document:#}");
    assert!(text.starts_with("never reaches steering: ") && not_run(&text).len() == 1, "{text}");
    // One that only a file was asked about says nothing of filters.
    let path = world.daemon.dir().join("rules.toml");
    let text = format!(
        "[[namespace]]\ntarget = \"{}\"\n[[namespace.rule]]\nmatch = [\"tcp:*\"]\nto = [\"reject\"]\n",
        world.target()
    );
    std::fs::write(&path, text).expect("write a file");
    let words = ["explain", &world.target(), flow, "--config", path.to_str().unwrap()];
    assert_eq!(world.cli().json(&words).get("netfilter"), None);
    // A connection goes on to be answered as it was.
    assert!(Conversation::open(&world.net.client, at(POD_V4, 80)).is_err());
}
