//! What `attach` says and does, apart from steering.

use redirector_tests::{
    client::Conversation,
    daemon::Daemon,
    netns::Netns,
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, Topology, at},
    world::World,
};
use serde_json::json;

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    let before = Snapshot::of(&world.net.pod);
    let fds = world.daemon.fds_at_rest();
    let answer = world.attach("--dry-run --match tcp:80 --to reject");
    assert_eq!(answer["result"], "attached", "{answer:#}");
    assert_eq!(answer["dry_run"], true, "{answer:#}");
    assert_eq!(answer["rule"], "rule-1", "{answer:#}");
    assert_eq!(answer["cookie"], world.net.pod.cookie(), "{answer:#}");
    assert_eq!(world.list()["namespaces"], json!([]));
    Snapshot::of(&world.net.pod).assert_same_as(&before);
    world.daemon.eventually_has_fds(fds);
    assert_eq!(world.answer(at(POD_V4, 80)), "app");

    let answer = world.attach("--match tcp:80 --to reject");
    assert_eq!(answer["dry_run"], false, "{answer:#}");
    let before = world.pod();
    let answer = world.attach("--dry-run --name rule-1 --match tcp:80 --to pass");
    assert_eq!((&answer["result"], &answer["dry_run"]), (&json!("changed"), &json!(true)), "{answer:#}");
    let answer = world.attach("--dry-run --name rule-1 --match tcp:80 --to reject");
    assert_eq!((&answer["result"], &answer["dry_run"]), (&json!("unchanged"), &json!(true)), "{answer:#}");
    let answer = world.attach("--dry-run --match tcp:81 --to pass");
    assert_eq!((&answer["result"], &answer["rule"]), (&json!("attached"), &json!("rule-2")), "{answer:#}");
    assert_eq!(world.pod()["rules"], before["rules"]);
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

#[test]
fn an_unnamed_rule_gets_the_lowest_number_that_is_free() {
    let world = World::new();
    let attach = |options: &str| world.attach(options)["rule"].as_str().unwrap().to_owned();
    assert_eq!(attach("--match tcp:80 --to reject"), "rule-1");
    assert_eq!(attach("--match tcp:81 --to reject"), "rule-2");
    assert_eq!(attach("--name rule-3 --match tcp:82 --to reject"), "rule-3");
    assert_eq!(attach("--match tcp:83 --to reject"), "rule-4");
    world.cli().json(&["detach", &world.target(), "--rule", "rule-2"]);
    assert_eq!(attach("--match tcp:84 --to reject"), "rule-2");
    let rules = world.pod()["rules"].clone();
    let names: Vec<_> = rules.as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["rule-1", "rule-2", "rule-3", "rule-4"]);
}

#[test]
fn an_attach_says_how_many_connections_stay_where_they_are() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    let _other = Server::inside(&world.net.pod, "other", 81);
    let open: Vec<Conversation> = [(POD_V4, 80), (POD_V4, 80), (POD_V6, 80), (POD_V4, 81)]
        .map(|(pod, port)| world.open(at(pod, port)).0)
        .into();
    let existing = |options: &str| world.attach(options)["existing_connections"].as_u64().unwrap();
    assert_eq!(existing("--dry-run --match tcp:80 --to reject"), 3);
    assert_eq!(existing("--dry-run --match tcp:81 --to reject"), 1);
    assert_eq!(existing("--dry-run --match tcp:* --to reject"), 4);
    assert_eq!(existing("--dry-run --match tcp:10.77.0.1:80 --to reject"), 2);
    assert_eq!(existing("--dry-run --match tcp:[fd77::/16]:80-90 --to reject"), 1);
    assert_eq!(existing("--dry-run --match tcp:82 --to reject"), 0);
    drop(open);
}

#[test]
fn an_attach_warns_of_a_prefix_that_is_not_local_and_of_no_other() {
    let world = World::new();
    let warnings =
        |options: &str| world.attach(&format!("--dry-run --to reject {options}"))["warnings"].clone();
    for local in [
        "tcp:80",
        "tcp:10.77.0.1:80",
        "tcp:10.0.0.0/8:80",
        "tcp:0.0.0.0/0:80",
        "tcp:127.0.0.1:80",
        "tcp:127.9.9.9:80",
        "tcp:[fd77::1]:80",
        "tcp:[fd00::/8]:80",
        "tcp:[::1]:80",
        "tcp:[::/0]:80",
    ] {
        assert_eq!(warnings(&format!("--match {local}")), json!([]), "{local}");
    }
    for (foreign, name) in [
        ("tcp:192.0.2.1:80", "192.0.2.1"),
        ("tcp:10.77.0.2:80", "10.77.0.2"),
        ("tcp:10.78.0.0/16:80", "10.78.0.0/16"),
        ("tcp:[2001:db8::1]:80", "2001:db8::1"),
        ("tcp:[fd78::/16]:80", "fd78::/16"),
    ] {
        let warnings = warnings(&format!("--match {foreign} --match tcp:81"));
        assert_eq!(warnings.as_array().unwrap().len(), 1, "{foreign}: {warnings:#}");
        assert!(warnings[0].as_str().unwrap().contains(name), "{foreign}: {warnings:#}");
    }
    // An AnyIP route makes its whole prefix local.
    world.net.pod.ip("route add local 192.0.2.0/24 dev lo");
    assert_eq!(warnings("--match tcp:192.0.2.1:80"), json!([]));
}

#[test]
fn any_ip_addresses_are_steered_and_the_original_is_dialled_there() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let any: std::net::IpAddr = [192, 0, 2, 7].into();
    world.net.pod.ip("route add local 192.0.2.0/24 dev lo");
    world.net.client.ip("route add 192.0.2.0/24 via 10.77.0.1");
    world.steer("any", "tcp:192.0.2.0/24:80", &proxy.destination());
    let (conversation, server) = world.open(at(any, 80));
    assert_eq!(server, "proxy");
    conversation.finish().unwrap();
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("any", "tcp:192.0.2.0/24:80", "original");
    let greeting = world.visit(at(any, 80));
    assert_eq!((&*greeting.server, greeting.local), ("app", Some(at(any, 80))));
    assert_eq!(greeting.peer.unwrap().ip(), any);
}

#[test]
fn text_for_people_says_the_same_as_the_document() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let target = world.target();
    let to = proxy.destination();
    let words = ["attach", &target, "--name", "http", "--match", "tcp:80", "--to", &to];
    let outcome = world.cli().run(&words).success();
    assert!(outcome.stdout.contains("http") && outcome.stdout.contains(&target), "{outcome}");
    assert_eq!(outcome.stderr, "", "nothing to warn of{outcome}");
    let outcome = world.cli().run(&words).success();
    assert!(outcome.stdout.contains("unchanged"), "{outcome}");
    world.visit(at(POD_V4, 80));
    let outcome = world.cli().run(&["list"]).success();
    for part in [&*target, "http", "tcp:80", &to] {
        assert!(outcome.stdout.contains(part), "must show {part}{outcome}");
    }
    assert!(!outcome.stdout.contains('\u{1b}'), "no colour when not a terminal{outcome}");
    let outcome = world.cli().run(&["detach", &target]).success();
    assert!(outcome.stdout.contains("http"), "{outcome}");
}

#[test]
fn a_name_that_a_terminal_would_obey_is_escaped_and_still_names() {
    let name = format!("rdt-{} a%20b?\u{1b}[31m", redirector_tests::dir::unique());
    let world = World::with(Daemon::with_log_read(&[]), Topology::around(Netns::named(&name)));
    let target = world.target();
    let words = ["attach", &target, "--match", "tcp:80", "--to", "reject"];
    for words in
        [&words[..], &words, &["list"], &["list", &target], &["detach", &target], &["detach", &target]]
    {
        let outcome = world.cli().run(words);
        let said = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(said.contains("a%20b?"), "must name it{outcome}");
        assert!(!said.contains('\u{1b}'), "must not pass it on as it is{outcome}");
    }
    assert!(!world.daemon.log().concat().contains('\u{1b}'));
}

#[test]
fn a_warning_goes_to_stderr_and_the_document_to_stdout() {
    let world = World::new();
    let target = world.target();
    let outcome = world
        .cli()
        .run(&["attach", &target, "--match", "tcp:192.0.2.1:80", "--to", "reject", "--json"])
        .success();
    let document = redirector_tests::cli::document(&outcome);
    assert_eq!(document["warnings"].as_array().unwrap().len(), 1, "{outcome}");
    assert!(outcome.stderr.starts_with("warning: ") && outcome.stderr.lines().count() == 1, "{outcome}");
}

/// What a container's root has put there is not what others wait for.
#[test]
fn a_look_at_a_large_namespace_keeps_no_other_change_waiting() {
    let (daemon, large, other) = (Daemon::start(), Netns::new(), Netns::new());
    let address = |number: u32| std::net::Ipv4Addr::from(0x0a00_0000 + number);
    let routes: String =
        (0..200_000).map(|number| format!("route add local {} dev lo\n", address(number))).collect();
    large.ip("link set lo up");
    large.ip(&routes);
    let attach = ["attach", &large.target(), "--match", "tcp:80", "--to", "reject"];
    let attaching = daemon.cli().command(&attach).stdout(std::process::Stdio::null()).spawn();
    let mut attaching = attaching.expect("spawn");
    let mut changes = 0;
    while attaching.try_wait().expect("wait").is_none() {
        changes += 1;
        let name = format!("rule-{changes}");
        let attach = ["attach", &other.target(), "--name", &name, "--match", "tcp:80", "--to", "reject"];
        daemon.cli().json(&attach);
    }
    // The first may have come before the look, and the last after it.
    assert!(changes > 2, "{changes} changes elsewhere while one namespace was looked at");
    assert_eq!(daemon.cli().json(&["list"])["namespaces"].as_array().map(Vec::len), Some(2));
}
