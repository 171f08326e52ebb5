//! Deaths of many namespaces at once, and of one that several parts of the daemon have something in.

use std::{fmt::Write as _, fs, time::Duration};

use redirector_tests::{
    client::answer,
    daemon::Daemon,
    eventually::eventually,
    netns::Netns,
    server::Server,
    topology::{POD_V4, Topology, at},
    world::World,
};
use serde_json::{Value, json};

/// How long a namespace may live after its last process and mount are gone.
const FIGURE: Duration = Duration::from_secs(2);

#[track_caller]
fn eventually_lists(daemon: &Daemon, what: &str, is: impl Fn(&Value) -> bool) {
    eventually(what, FIGURE, || {
        let list = daemon.cli().json(&["list"]);
        if is(&list) { Ok(()) } else { Err(list) }
    });
}

fn is_empty(list: &Value) -> bool {
    list["namespaces"] == json!([]) && list["draining"] == json!([])
}

#[test]
fn those_that_die_at_once_are_let_go_of_and_the_rest_stays_steered() {
    let daemon = Daemon::with_log_read(&[]);
    let stays = Topology::new();
    let dies: Vec<_> =
        (0..16).map(|number| if number % 4 == 0 { Netns::of_process() } else { Netns::new() }).collect();
    let mut text = String::new();
    for netns in dies.iter().chain([&stays.pod]) {
        let target = netns.target();
        write!(
            text,
            "[[namespace]]\ntarget = \"{target}\"\n[[namespace.rule]]\nmatch = [\"tcp:80\"]\nto = [\"reject\"]\n"
        )
        .expect("a String takes all");
    }
    let file = daemon.dir().join("many.toml");
    fs::write(&file, text).expect("write the file");
    daemon.cli().run(&["apply", file.to_str().expect("UTF-8")]).success();
    // Some by the end of a process, some by that of a mount.
    drop(dies);
    let target = stays.pod.target();
    eventually_lists(&daemon, "one is left", |list| {
        list["namespaces"].as_array().is_some_and(|all| all.len() == 1 && all[0]["target"] == target)
    });
    eventually("each is let go of once", FIGURE, || match daemon.log_with(&["let go of it"]) {
        lines if lines.len() == 16 => Ok(()),
        lines => Err(lines),
    });
    assert_eq!(answer(&stays.client, at(POD_V4, 80)), "refused");
    stays.pod.delete();
    eventually_lists(&daemon, "the last one is let go of", is_empty);
}

#[test]
fn one_that_is_steered_again_dies_with_what_is_left_from_before() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    let (before, _) = world.open(at(POD_V4, 80));
    world.detach();
    world.steer("http", "tcp:80", &proxy.destination());
    let (after, _) = world.open(at(POD_V4, 80));
    let list = world.list();
    assert_eq!(
        (&list["namespaces"][0]["connections"]["active"], &list["draining"][0]["connections"]),
        (&json!(1), &json!(1))
    );
    world.net.pod.delete();
    eventually_lists(&world.daemon, "both are let go of", is_empty);
    drop((before, after));
}

#[test]
fn one_that_is_steered_again_is_watched_when_what_was_before_has_ended() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    let fds = world.daemon.fds_at_rest();
    let (before, _) = world.open(at(POD_V4, 80));
    world.detach();
    world.steer("http", "tcp:80", &proxy.destination());
    drop(before);
    // With what is left from before, that it was watched is forgotten.
    world.daemon.eventually_has_fds(fds);
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    world.net.pod.delete();
    eventually_lists(&world.daemon, "it is let go of", is_empty);
}

#[test]
fn one_that_is_a_destination_too_is_watched_for_that_whether_it_is_steered_or_not() {
    for is_steered in [true, false] {
        let (world, other) = (World::new(), Topology::new());
        let server = Server::inside(&other.pod, "other", 8080);
        let there = other.pod.target();
        world.steer("there", "tcp:80", &format!("{there}/127.0.0.1:8080"));
        assert_eq!(world.answer(at(POD_V4, 80)), "other");
        world.cli().json(&["attach", &there, "--match", "tcp:90", "--to", "reject"]);
        if !is_steered {
            world.cli().json(&["detach", &there]);
        }
        assert_eq!(world.rule("there")["state"], "up");
        other.pod.delete();
        drop(server);
        eventually_lists(&world.daemon, "one of them is left, and its rule is down", |list| {
            list["namespaces"].as_array().is_some_and(|all| all.len() == 1)
                && list["namespaces"][0]["rules"][0]["state"] == "down"
        });
    }
}
