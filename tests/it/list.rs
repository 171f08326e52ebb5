//! `list --watch`, and what it marks.

use std::io::{BufRead as _, BufReader};

use nix::sys::signal::{Signal, kill};
use redirector_tests::{
    cli::error,
    command::{pid, spawn},
    server::Server,
    topology::{POD_V4, at},
    world::{World, count},
};
use serde_json::Value;

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
