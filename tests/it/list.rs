//! `list --watch`, and what it marks.

use std::io::{BufRead as _, BufReader};

use nix::sys::signal::{Signal, kill};
use redirector_tests::{
    cli::error,
    command::{pid, spawn},
    eventually::eventually,
    exec::{Exec, Stage},
    server::Server,
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use super::SECOND;

/// The line of a text that begins with a name.
#[track_caller]
fn line<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text.lines().find(|line| line.split_whitespace().next() == Some(name));
    found.unwrap_or_else(|| panic!("no `{name}`: {text}"))
}

/// What `list` prints for people.
#[track_caller]
fn text(world: &World) -> String {
    world.cli().run(&["list"]).success().stdout
}

#[test]
fn watching_shows_the_counters_grow_and_a_rule_that_took_nothing() {
    let (world, server) = (World::new(), Server::here("server"));
    world.steer("http", "tcp:80", &server.destination());
    world.steer("unused", "tcp:81", "reject");
    let mut command = world.cli().command(&["list", "--watch=10ms", "--json"]);
    let mut child = spawn(command.stdout(std::process::Stdio::piped()));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut rules = || {
        let line = lines.next().expect("it goes on").unwrap();
        let document: Value = serde_json::from_str(&line).expect("a document on each line");
        assert_eq!(document["schema"], 1, "{document}");
        let rules = document["namespaces"][0]["rules"].as_array().expect("rules").clone();
        let steered = count(&rules[0], "/counters/steered");
        (steered, [&rules[0], &rules[1]].map(|rule| rule["took_nothing"] == true))
    };
    assert_eq!(rules(), (0, [true, true]));
    let mut before = 0;
    for _ in 0..3 {
        world.visit(at(POD_V4, 80));
        // Those that were printed before are read first. A SYN that is sent again may be decided again.
        let found = std::iter::repeat_with(&mut rules).find(|(steered, _)| *steered > before);
        let (steered, took_nothing) = found.expect("it goes on");
        assert_eq!(took_nothing, [false, true]);
        before = steered;
    }
    // Who starts tests in the background may have them ignore SIGINT.
    kill(pid(&child), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
    let text = world.cli().run(&["list"]).success().stdout;
    let line = |name: &str| {
        text.lines().find(|line| line.trim_start().starts_with(name)).expect("a line").to_owned()
    };
    assert!(!line("http").contains("took nothing yet"), "{text}");
    assert!(line("unused").contains("up, took nothing yet"), "{text}");
}

#[test]
fn watching_ends_with_the_daemon_and_with_its_reader() {
    let mut world = World::new();
    let child = spawn(world.cli().command(&["list", "--watch=10ms"]).stdout(std::process::Stdio::piped()));
    let mut child = child;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "no namespace is steered");
    drop(lines);
    assert!(child.wait().unwrap().success(), "whoever read it has seen enough");
    world.daemon.kill();
    error(&world.cli().run(&["list", "--watch"]), 4);
    let wrong = world.cli().run(&["list", "--watch=soon"]);
    assert!(error(&wrong, 2).contains("soon"), "{wrong}");
}

#[test]
fn a_rule_whose_destination_refuses_says_why_since_when_and_how_often() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    // Nobody else can have the port, and nobody listens there.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    bound.bind(&at([127, 0, 0, 1].into(), 0).into()).unwrap();
    let address = bound.local_addr().unwrap().as_socket().unwrap();
    world.steer("good", "tcp:80", &proxy.destination());
    world.steer("bad", "tcp:81", &address.to_string());
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    assert_eq!(world.answer(at(POD_V4, 81)), "reset");
    let failing = world.rule("bad");
    assert_eq!(
        (&failing["state"], &failing["failed"]),
        (&json!("up"), &json!({ "connect_refused": 1 })),
        "{failing:#}"
    );
    let last = &failing["last_failure"];
    assert_eq!(last["destination"], address.to_string(), "{failing:#}");
    assert_eq!((&last["why"], &last["in_a_row"]), (&json!("connection refused"), &json!(1)), "{failing:#}");
    let said = text(&world);
    assert!(line(&said, "bad").contains("up, but the last dial failed: connection refused"), "{said}");
    assert!(line(&said, "bad").ends_with(" 1 (connection refused 1)"), "{said}");
    assert!(line(&said, "good").ends_with(" 0") && !line(&said, "good").contains("failed"), "{said}");
    for _ in 0..2 {
        assert!(["reset", "refused"].contains(&&*world.answer(at(POD_V6, 81))));
    }
    let down = eventually("it is down", SECOND, || {
        let rule = world.rule("bad");
        if rule["state"] == "down" { Ok(rule) } else { Err(rule) }
    });
    assert_eq!(down["why"], "connection refused", "{down:#}");
    let since = down["since"].as_str().unwrap_or_else(|| panic!("{down:#}"));
    let time = since.get(11..19).expect("a time of day");
    let said = text(&world);
    assert!(line(&said, "bad").contains("down: connection refused, since "), "{said}");
    assert!(line(&said, "bad").contains(&format!("{time} UTC")), "{said}");
    // `explain` says the same, and which dial it was.
    let flow = format!("tcp 10.77.0.2:40000 -> {}", at(POD_V4, 81));
    let explained = world.cli().run(&["explain", &world.target(), &flow]).success().stdout;
    assert!(explained.contains("bad (api, down: connection refused, since "), "{explained}");
    let last = line(&explained, "dial");
    assert!(
        last.contains("failed") && last.contains(&format!(": {address}: connection refused")),
        "{explained}"
    );
    // And when it is there again nothing is left of it but the counters.
    bound.listen(16).unwrap();
    let up = eventually("it is up", SECOND, || {
        let rule = world.rule("bad");
        if rule["state"] == "up" { Ok(rule) } else { Err(rule) }
    });
    assert_eq!((up.get("why"), up.get("since")), (None, None), "{up:#}");
    assert!(line(&text(&world), "bad").contains(" up "), "{}", text(&world));
}

#[test]
fn what_a_destination_lacks_is_said_in_words() {
    let (world, other) = (World::new(), Topology::new());
    world.steer("file", "tcp:80", "unix:/nowhere.sock");
    world.steer("gone", "tcp:81", &format!("{}/127.0.0.1:80", other.pod.target()));
    for _ in 0..3 {
        assert!(["reset", "refused"].contains(&&*world.answer(at(POD_V4, 80))));
    }
    other.pod.delete();
    let pod = eventually("both are down", SECOND * 2, || {
        let pod = world.pod();
        let rules = pod["rules"].as_array().unwrap();
        if rules.iter().all(|rule| rule["state"] == "down") { Ok(pod) } else { Err(pod) }
    });
    assert_eq!(pod["rules"][0]["why"], "No such file or directory", "{pod:#}");
    let gone = pod["rules"][1]["why"].as_str().unwrap();
    assert!(gone.contains("is gone") || gone.contains("there is no"), "{pod:#}");
    let said = text(&world);
    assert!(
        !said.contains("os error") && !said.contains("ENOENT") && !said.contains("connect_error"),
        "{said}"
    );
}

#[test]
fn who_made_a_rule_and_what_no_rule_takes_are_said() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let file = format!(
        "[[namespace]]\ntarget = \"{}\"\n[[namespace.rule]]\nname = \"filed\"\nmatch = [\"tcp:80\"]\nto = [\"{}\"]\n",
        world.target(),
        proxy.destination()
    );
    super::files::apply(&world, &file, &[]).success();
    world.steer("typed", "tcp:81", "reject");
    assert!(!text(&world).contains("unmatched"), "{}", text(&world));
    for _ in 0..3 {
        assert_eq!(world.answer(at(POD_V4, 90)), "refused");
    }
    let said = text(&world);
    assert!(said.lines().any(|line| line.trim() == "unmatched: 3"), "{said}");
    assert!(line(&said, "filed").contains(" file "), "{said}");
    assert!(line(&said, "typed").contains(" api "), "{said}");
    // What each column means is in the help.
    let help = world.cli().run(&["help", "list"]).success().stdout;
    let columns = line(&said, "RULE");
    for column in columns.split_whitespace().chain(["unmatched", "bytes from clients"]) {
        assert!(help.contains(&format!("  {column}")), "`{column}`: {help}");
    }
}

#[test]
fn a_program_that_does_not_listen_yet_is_waited_for_and_not_up() {
    let stage = Stage::with_daemon();
    let mut cmd = Exec::start(&mut stage.exec("--match tcp:80 --listen-as 18080", &["cat"]));
    let cli = stage.daemon.as_ref().unwrap().cli();
    let rule = eventually("its rule is there", SECOND, || {
        let list = cli.json(&["list"]);
        list.pointer("/namespaces/0/rules/0").cloned().ok_or(list)
    });
    assert_eq!(
        (&rule["state"], &rule["why"]),
        (&json!("up"), &json!("its program does not listen yet")),
        "{rule:#}"
    );
    assert_eq!(stage.answers(), ["refused", "refused"]);
    let said = cli.run(&["list"]).success().stdout;
    let said = line(&said, "rule-1").to_owned();
    assert!(said.contains("waiting: its program does not listen yet"), "{said}");
    assert!(said.contains(" lease ") && said.contains("2 (nobody listens 2)"), "{said}");
    let target = stage.net.pod.target();
    let explained = cli.run(&["explain", &target, "tcp 10.77.0.2:40000 -> 10.77.0.1:80"]).success().stdout;
    assert!(explained.contains("rule-1 (lease, waiting: its program does not listen yet)"), "{explained}");
    assert!(explained.contains("unavailable  yes (nobody listens), so reject"), "{explained}");
    cmd.close_stdin();
    assert_eq!(cmd.code(), 0);
}

#[test]
fn connections_that_are_refused_before_they_are_dialled_are_of_their_rule_too() {
    let world = World::with(
        redirector_tests::daemon::Daemon::with(&["--max-connections-per-client", "1"]),
        Topology::new(),
    );
    let (one, two) = (Server::here("one"), Server::here("two"));
    world.steer("one", "tcp:80", &one.destination());
    world.steer("two", "tcp:81", &two.destination());
    let (open, _) = world.open(at(POD_V4, 80));
    assert_eq!(world.answer(at(POD_V4, 81)), "reset");
    world.eventually("it is counted", "/connections/failed/client_limit", |count| *count == 1);
    assert_eq!(world.rule("two")["failed"], json!({ "client_limit": 1 }));
    let said = text(&world);
    assert!(line(&said, "two").ends_with(" 1 (too many connections of one client 1)"), "{said}");
    assert!(line(&said, "one").ends_with(" 0"), "{said}");
    drop(open);
}
