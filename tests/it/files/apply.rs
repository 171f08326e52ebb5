//! What a file says comes into force whole, or not at all.

use redirector_tests::{
    client::answer,
    daemon::Daemon,
    eventually::eventually,
    exec::Exec,
    http,
    netns::Netns,
    scale::often,
    server::Server,
    topology::{POD_V4, POD_V6, Topology, at},
    world::World,
};
use serde_json::json;

use super::{apply, export, file, namespace, said};
use crate::SECOND;

#[test]
fn a_file_steers_two_namespaces_and_is_applied_again_without_a_difference() {
    let (world, one, two) = (World::new(), Server::here("one"), Server::here("two"));
    let (pod, client) = (world.target(), world.net.client.target());
    let first = file(&[
        namespace(
            &pod,
            &json!([{"name": "http", "match": ["tcp:80"], "to": [one.destination()]}, {"match": ["tcp:81"], "to": ["reject"]}]),
        ),
        namespace(&client, &json!([{"name": "back", "match": ["tcp:90"], "to": [two.destination()]}])),
    ]);
    let dry = apply(&world, &first, &["--dry-run"]);
    assert_eq!(dry.code(), 5, "{dry}");
    assert_eq!(world.list()["namespaces"], json!([]), "a dry run does nothing");
    let (lines, last) = said(apply(&world, &first, &[]));
    let dry: Vec<_> = dry.stdout.lines().map(str::to_owned).collect();
    assert_eq!(dry[..3], lines[..], "a dry run says what is done");
    assert_eq!(lines[0], format!("+ {pod} http: tcp:80 to {}", one.destination()));
    assert_eq!(lines[1], format!("+ {pod} rule-1: tcp:81 to reject"));
    assert_eq!(last, "applied: 3 added, 0 changed, 0 removed, 0 unchanged");
    for to in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(to, 80)), "one");
        assert_eq!(world.answer(at(to, 81)), "refused");
    }
    let client_v4 = redirector_tests::topology::CLIENT_V4;
    assert_eq!(answer(&world.net.pod, at(client_v4, 90)), "two");
    assert!(world.pod()["rules"].as_array().unwrap().iter().all(|rule| rule["origin"] == "file"));
    let again = (Vec::new(), "applied: 0 added, 0 changed, 0 removed, 3 unchanged".to_owned());
    assert_eq!(said(apply(&world, &first, &[])), again);
    assert_eq!(
        said(apply(&world, &export(&world), &["--dry-run"])).0,
        again.0,
        "what is exported is no difference"
    );
    // One changes, one goes, one comes, and the other namespace is not in it any more.
    let second = file(&[namespace(
        &pod,
        &json!([{"name": "http", "match": ["tcp:80"], "to": [two.destination()], "priority": 3}, {"name": "new", "match": ["tcp:82"], "to": [one.destination()]}]),
    )]);
    let (lines, last) = said(apply(&world, &second, &[]));
    let changed =
        format!("~ {pod} http: priority none -> 3; to {} -> {}", one.destination(), two.destination());
    assert!(lines.contains(&changed), "{lines:#?}");
    assert!(lines.contains(&format!("- {client} back: tcp:90 to {}", two.destination())), "{lines:#?}");
    assert_eq!(last, "applied: 1 added, 1 changed, 2 removed, 0 unchanged");
    for to in [POD_V4, POD_V6] {
        let answers = [80, 81, 82].map(|port| world.answer(at(to, port)));
        assert_eq!(answers, ["two", "refused", "one"]);
    }
    assert_eq!(answer(&world.net.pod, at(client_v4, 90)), "refused");
    assert_eq!(world.list()["namespaces"].as_array().unwrap().len(), 1);
    said(apply(&world, "", &[]));
    assert_eq!(world.list()["namespaces"], json!([]), "an empty file wants nothing");
}

#[test]
fn rules_of_attach_stay_unless_the_file_says_the_same_or_prunes() {
    let (world, server) = (World::new(), Server::here("server"));
    world.steer("mine", "tcp:80", &server.destination());
    world.steer("same", "tcp:81", &server.destination());
    let same = json!({"name": "same", "match": ["tcp:81"], "to": [server.destination()]});
    let text = file(&[namespace(&world.target(), &json!([same]))]);
    assert_eq!(said(apply(&world, &text, &[])).0, Vec::<String>::new());
    let origins = || ["mine", "same"].map(|name| world.rule(name)["origin"].as_str().unwrap().to_owned());
    assert_eq!(origins(), ["api", "file"], "the file has from now on what it says as well");
    // What the file has is the file's to change; what it does not have is not.
    let refused =
        world.cli().run(&["attach", &world.target(), "--name", "same", "--match", "tcp:82", "--to", "pass"]);
    assert!(redirector_tests::cli::error(&refused, 1).contains("configuration file"), "{refused}");
    let unchanged = world.steer("same", "tcp:81", &server.destination());
    assert_eq!(unchanged["result"], "unchanged", "{unchanged:#}");
    assert_eq!(origins(), ["api", "file"]);
    let clash = file(&[namespace(
        &world.target(),
        &json!([{"name": "mine", "match": ["tcp:80"], "to": ["reject"]}]),
    )]);
    let outcome = apply(&world, &clash, &[]);
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(outcome.stderr.contains("file.toml:3:1: error: rule `mine`"), "{outcome}");
    assert!(outcome.stderr.contains("`--prune`"), "{outcome}");
    assert_eq!(world.answer(at(POD_V4, 80)), "server");
    let (lines, _) = said(apply(&world, &clash, &["--prune"]));
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
    // The operator may still take a rule of the file away; the next apply brings it back.
    world.cli().json(&["detach", &world.target(), "--rule", "mine"]);
    assert_eq!(said(apply(&world, &clash, &["--prune"])).0.len(), 1);
}

#[test]
fn a_lease_is_nobodys_to_prune() {
    let world = World::new();
    let target = world.target();
    let lease = ["exec", &target, "--match", "tcp:80", "--name", "held", "--", "sleep", "1000"];
    let mut exec = Exec::start(&mut world.cli().command(&lease));
    eventually("the lease is there", SECOND, || {
        let list = world.list();
        if list["namespaces"][0]["rules"][0]["origin"] == "lease" { Ok(()) } else { Err(list) }
    });
    said(apply(&world, "", &["--prune"]));
    assert_eq!(world.rule("held")["origin"], "lease");
    let text = file(&[namespace(&target, &json!([{"name": "held", "match": ["tcp:81"], "to": ["reject"]}]))]);
    let outcome = apply(&world, &text, &["--prune"]);
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(outcome.stderr.contains("a program has listeners by a rule of that name"), "{outcome}");
    assert!(!export(&world).contains("held"), "a lease is not a file's");
    exec.end(nix::sys::signal::Signal::SIGTERM);
}

#[test]
fn what_cannot_be_applied_is_told_at_once_and_changes_nothing() {
    let (world, server) = (World::new(), Server::here("server"));
    let dark = Netns::new();
    dark.ip("link set lo down");
    let good = file(&[namespace(
        &world.target(),
        &json!([{"name": "http", "match": ["tcp:80"], "to": [server.destination()]}]),
    )]);
    said(apply(&world, &good, &[]));
    let before = export(&world);
    let text = file(&[
        namespace(
            &world.target(),
            &json!([
                {"name": "http", "match": ["tcp:80"], "to": ["reject"]},
                {"name": "far", "match": ["tcp:81"], "to": ["netns:rdt-none/127.0.0.1:80"]},
                {"name": "unknown", "match": ["tcp:82"], "to": ["no-such-host.invalid:80"]},
            ]),
        ),
        namespace("netns:rdt-absent", &json!([{"match": ["tcp:80"], "to": ["reject"]}])),
        namespace(&dark.target(), &json!([{"match": ["tcp:80"], "to": ["original"]}])),
        namespace("path:/proc/self/ns/net", &json!([{"match": ["tcp:80"], "to": ["reject"]}])),
    ]);
    let outcome = apply(&world, &text, &[]);
    assert_eq!(outcome.code(), 1, "{outcome}");
    let errors: Vec<_> = outcome.stderr.lines().filter(|line| line.contains(": error: ")).collect();
    for (place, part) in [
        (":8:1:", "netns:rdt-none/127.0.0.1:80"),
        (":13:1:", "resolve `no-such-host.invalid`"),
        (":19:", "rdt-absent"),
        (":24:", "`lo` is down"),
        (":29:", "host's own network namespace"),
    ] {
        assert!(errors.iter().any(|line| line.contains(part)), "{place} {part}{outcome}");
    }
    assert_eq!(errors.len(), 5, "{outcome}");
    assert_eq!(export(&world), before);
    assert_eq!(world.answer(at(POD_V4, 80)), "server");
}

#[test]
fn a_daemon_says_what_is_wrong_with_a_request_that_no_file_made() {
    let world = World::new();
    for (body, part) in [
        ("{\"namespaces\": 1}", "invalid type"),
        ("{\"namespace\": []}", "unknown field"),
        ("{\"namespaces\": [{\"target\": \"netns:a\"}]}", "needs a rule"),
        (
            "{\"namespaces\": [{\"target\": \"self\", \"rule\": [{\"match\": [\"tcp:1\"], \"to\": [\"pass\"]}]}]}",
            "`self`",
        ),
        (
            "{\"namespaces\": [{\"target\": \"netns:a\", \"rule\": [{\"match\": [], \"to\": [\"pass\"]}]}]}",
            "needs a match",
        ),
    ] {
        let answer = http::post(world.daemon.socket(), "/v1/apply", body);
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        assert!(answer.body.to_string().contains(part), "{body}: {answer:?}");
    }
    let answer = http::post(world.daemon.socket(), "/v1/apply", "{}");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn two_targets_that_are_one_namespace_are_one() {
    let (world, server) = (World::new(), Server::here("server"));
    let path = format!("path:{}", world.net.pod.path().display());
    let (here, there) = (
        json!({"name": "a", "match": ["tcp:80"], "to": [server.destination()]}),
        json!({"name": "b", "match": ["tcp:81"], "to": [server.destination()]}),
    );
    let text = file(&[namespace(&world.target(), &json!([here])), namespace(&path, &json!([there]))]);
    assert_eq!(said(apply(&world, &text, &[])).1, "applied: 2 added, 0 changed, 0 removed, 0 unchanged");
    assert_eq!(world.list()["namespaces"].as_array().unwrap().len(), 1);
    for port in [80, 81] {
        assert_eq!(world.answer(at(POD_V4, port)), "server");
    }
    let other = json!({"name": "a", "match": ["tcp:82"], "to": ["reject"]});
    let clash = file(&[namespace(&world.target(), &json!([here])), namespace(&path, &json!([other]))]);
    let outcome = apply(&world, &clash, &[]);
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(outcome.stderr.contains("is the same namespace"), "{outcome}");
}

#[test]
fn one_file_and_another_in_turn_lose_no_connection_of_four_clients() {
    let (world, one, two) = (World::new(), Server::here("one"), Server::here("two"));
    // Of which one has an image of another size than the other, and one rule less.
    let ports =
        |first: usize| (0..60).map(|item| (first + 1000 * item).to_string()).collect::<Vec<_>>().join(",");
    let rules = [
        json!([{"name": "http", "match": ["tcp:80"], "to": [one.destination()]}]),
        json!([
            {"name": "http", "match": ["tcp:80", format!("tcp:{}", ports(1500))], "to": [two.destination()]},
            {"name": "more", "match": [format!("tcp:{}", ports(1700))], "to": ["reject"]},
        ]),
    ];
    let texts = rules.map(|rules| file(&[namespace(&world.target(), &rules)]));
    said(apply(&world, &texts[0], &[]));
    let first = export(&world);
    let visits = world.under_load(&["one", "two"], || {
        for turn in 1..=often() {
            said(apply(&world, &texts[turn % 2], &[]));
        }
        if often() % 2 == 1 {
            said(apply(&world, &texts[0], &[]));
        }
    });
    println!("{visits} visits");
    assert!(one.accepted() > 0 && two.accepted() > 0);
    assert_eq!(export(&world), first, "A, then B, then A is A");
    assert_eq!(world.pod()["connections"]["failed"], json!({}), "none that no rule takes");
}

#[test]
fn what_is_exported_leads_where_it_is_in_force_although_its_name_does_not_any_more() {
    let world = World::with(Daemon::start(), Topology::around(Netns::of_process()));
    // Its only name, which goes, and then is another namespace's.
    let named = world.net.pod.with_a_name();
    let target = named.target();
    world.cli().json(&["attach", &target, "--name", "r", "--match", "tcp:80", "--to", "reject"]);
    assert!(export(&world).contains(&target));
    let name = named.name();
    named.delete();
    let (text, cookie) = (export(&world), format!("cookie:{}", world.net.pod.cookie()));
    assert!(text.contains(&cookie), "{text}");
    assert_eq!(said(apply(&world, &text, &["--dry-run"])).0, Vec::<String>::new());
    let _other = Netns::named(&name);
    let text = export(&world);
    assert!(text.contains(&cookie), "{text}");
    assert_eq!(said(apply(&world, &text, &[])).0, Vec::<String>::new());
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

/// Takes long because such rules are compiled up to the limit, by `check` and by `apply`, without optimisation.
#[test]
fn rules_that_are_too_many_together_are_refused_at_their_place_and_by_check() {
    let world = World::new();
    world.steer("there", "tcp:80", "reject");
    let before = export(&world);
    // Each overlaps with all others, in destination and port.
    let rule = |number: usize| {
        let ports: Vec<_> = (0..60).map(|item| (1 + number % 500 + 1000 * item).to_string()).collect();
        let prefix = format!("10.{}.{}.0/{}", number / 256, number % 256, 24);
        json!({"match": [format!("tcp:{prefix}:{}", ports.join(",")), format!("tcp:10.0.0.0/8:{}-{}", 1 + number, 40_000 + number)], "to": ["reject"]})
    };
    let rules: Vec<_> = (0..3_000).map(rule).collect();
    let good = namespace(&world.net.client.target(), &json!([{"match": ["tcp:80"], "to": ["reject"]}]));
    let text = file(&[good, namespace(&world.target(), &json!(rules))]);
    let outcome = apply(&world, &text, &[]);
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(outcome.stderr.contains("file.toml:7:10: error: target"), "{outcome}");
    let path = world.daemon.dir().join("file.toml");
    let checked = world.cli().run(&["check", path.to_str().unwrap()]);
    assert_eq!(checked.code(), 2, "{checked}");
    assert!(checked.stderr.contains("file.toml:7:10: error: target"), "{checked}");
    assert_eq!(export(&world), before);
}
