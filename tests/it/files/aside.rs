//! `run --config` and SIGHUP, where a namespace of the file is there and cannot be made: it is set aside, and all others are
//! in force.

use std::fs;

use nix::sys::signal::Signal;
use redirector_tests::{
    cli::error,
    daemon::Daemon,
    dir::Dir,
    eventually::eventually,
    netns::Netns,
    server::Server,
    topology::{POD_V4, Topology, at},
    world::World,
};
use serde_json::{Value, json};

use super::{apply, export, file, namespace, own::logged};
use crate::SECOND;

/// One rule, for TCP port 80.
fn rule(name: &str, to: &str) -> Value {
    json!({"name": name, "match": ["tcp:80"], "to": [to]})
}

/// Targets that are steered, and those that wait.
fn steered_and_waiting(world: &World) -> [Vec<String>; 2] {
    let list = world.list();
    ["namespaces", "waiting"].map(|part| {
        let targets = list[part].as_array().expect("an array").iter().map(|one| one["target"].as_str());
        let mut targets: Vec<_> = targets.map(|target| target.expect("a target").to_owned()).collect();
        targets.sort_unstable();
        targets
    })
}

/// Waits until the daemon's supervisor is told this status.
#[track_caller]
fn eventually_told(world: &World, status: &str) {
    eventually("the status is told", SECOND, || match world.daemon.status() {
        Some(told) if told == status => Ok(()),
        other => Err(other),
    });
}

/// Waits until as many are steered, and as many wait.
#[track_caller]
fn eventually_steered(world: &World, what: &str, seconds: u32, counts: [usize; 2]) {
    eventually(what, SECOND * seconds, || {
        let now = steered_and_waiting(world);
        if now.each_ref().map(Vec::len) == counts { Ok(()) } else { Err(now) }
    });
}

#[test]
fn namespaces_that_cannot_be_made_keep_no_other_from_being_steered() {
    let (net, proxy, other) = (Topology::new(), Server::here("proxy"), Daemon::start());
    // Its loopback device is down, another redirector is there, and an interface is not.
    let [down, foreign, narrow] = [Netns::new(), Netns::new(), Netns::new()];
    let spaces = [&down, &foreign, &narrow];
    other.cli().json(&["attach", &foreign.target(), "--match", "tcp:1", "--to", "reject"]);
    let mut by_interface = rule("narrow", "reject");
    by_interface["interface"] = json!(["eth7"]);
    let text = file(&[
        namespace(&down.target(), &json!([rule("down", "original")])),
        namespace(&net.pod.target(), &json!([rule("http", &proxy.destination())])),
        namespace(&foreign.target(), &json!([rule("foreign", "reject")])),
        namespace(&narrow.target(), &json!([by_interface])),
    ]);
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    fs::write(&path, &text).unwrap();
    let world = World::with(Daemon::with(&["--config", path.to_str().unwrap()]), net);
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    let mut waiting: Vec<_> = spaces.iter().map(|netns| netns.target()).collect();
    waiting.sort_unstable();
    assert_eq!(steered_and_waiting(&world), [vec![world.target()], waiting.clone()]);
    for (netns, why) in spaces.iter().zip(["`lo` is down", "another redirector", "no interface `eth7`"]) {
        let target = netns.target();
        let said = logged(&world.daemon, &["ERROR", "set aside", &target, why, "line="]);
        assert_eq!(said.len(), 1, "{said:#?}");
        let shown = world.cli().json(&["list", &target]);
        let told = &shown["waiting"][0];
        assert!(told["why"].as_str().unwrap().contains(why) && told["container"] == "", "{shown:#}");
        assert!(export(&world).contains(&target));
    }
    let shown = world.cli().run(&["list"]).success().stdout;
    assert!(shown.contains(&format!("{}: waiting: ", down.target())), "{shown}");
    // What does not want it any more says so.
    let gone = world.cli().json(&["detach", &narrow.target()]);
    assert_eq!(gone["rules"], json!(["narrow"]), "{gone:#}");
    error(&world.cli().run(&["detach", &narrow.target()]), 3);
    eventually_told(&world, "2 namespaces of the file could not be made");
    // The others come by themselves when they can.
    down.ip("link set lo up");
    other.cli().json(&["detach", &foreign.target()]);
    eventually_steered(&world, "what was set aside is in force", 8, [3, 0]);
    eventually_told(&world, "");
    logged(&world.daemon, &["INFO", "what was set aside is in force", &down.target()]);
    assert_eq!(world.rule("http")["origin"], "file");
    // And the file brings back what was detached, as it brings back anything.
    narrow.ip("link add eth7 type veth peer name eth8");
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["SIGHUP: the file is applied", "changes=1", "set_aside=0"]);
    eventually_steered(&world, "all is in force", 1, [4, 0]);
}

#[test]
fn what_is_in_force_stays_where_its_change_cannot_be_made() {
    let (net, one, two) = (Topology::new(), Server::here("one"), Server::here("two"));
    let other = Netns::new();
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    let text = |to: &str, there: &str| {
        file(&[
            namespace(&net.pod.target(), &json!([rule("http", to)])),
            namespace(&other.target(), &json!([rule("there", there)])),
        ])
    };
    let [first, second] = [text(&one.destination(), "reject"), text(&two.destination(), "original")];
    fs::write(&path, &first).unwrap();
    let daemon = Daemon::with(&["--config", path.to_str().unwrap()]);
    let alone = file(&[namespace(&net.pod.target(), &json!([rule("http", &two.destination())]))]);
    let world = World::with(daemon, net);
    assert_eq!(world.answer(at(POD_V4, 80)), "one");
    let there = |world: &World| {
        let list = world.cli().json(&["list", &other.target()]);
        list.pointer("/namespaces/0/rules/0/to/0").cloned()
    };
    // The command line is told all of it, and nothing is changed.
    let outcome = apply(&world, &second, &[]);
    assert!(error(&outcome, 1).contains("nothing is changed"), "{outcome}");
    assert_eq!(world.answer(at(POD_V4, 80)), "one");
    fs::write(&path, &second).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["ERROR", "set aside", "`lo` is down"]);
    logged(&world.daemon, &["SIGHUP: the file is applied", "changes=1", "set_aside=1"]);
    assert_eq!(world.answer(at(POD_V4, 80)), "two");
    assert_eq!(there(&world), Some(json!("reject")));
    assert_eq!(steered_and_waiting(&world)[1], [other.target()]);
    // Nor does a next file, which does not name it, leave anything of it.
    fs::write(&path, alone).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    eventually_steered(&world, "it is let go of", 1, [1, 0]);
    other.ip("link set lo up");
    fs::write(&path, &second).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    eventually_steered(&world, "it is in force", 1, [2, 0]);
    assert_eq!(there(&world), Some(json!("original")));
}

#[test]
fn what_is_set_aside_is_listed_and_detached_by_every_name_of_its_namespace() {
    let process = Netns::of_process();
    let [by_path, by_cookie, steered, changed] = [(); 4].map(|()| Netns::new());
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    let text = |to: &str| {
        let rules = json!([rule("first", to), rule("second", "reject")]);
        let named =
            [&by_path, &by_cookie, &steered, &changed].map(|netns| namespace(&netns.target(), &rules));
        let of_process = namespace(&format!("path:{}", process.path().display()), &rules);
        file(&[&named[..], &[of_process]].concat())
    };
    // These two can be as the file says.
    steered.ip("link set lo up");
    changed.ip("link set lo up");
    fs::write(&path, text("original")).unwrap();
    let daemon = Daemon::with(&["--config", path.to_str().unwrap()]);
    let world = World::with(daemon, Topology::new());
    eventually_steered(&world, "the others wait", 1, [2, 3]);
    let list = |name: &str| world.cli().json(&["list", name]);
    let detach = |name: &str, options: &[&str]| {
        world.cli().json(&[&["detach", name], options].concat())["rules"].clone()
    };
    let names = [
        format!("path:{}", by_path.path().display()),
        format!("cookie:{}", by_cookie.cookie()),
        format!("pid:{}", process.pid()),
    ];
    for name in &names {
        assert_eq!(list(name)["waiting"][0]["rules"].as_array().map(Vec::len), Some(2), "{name}");
        assert_eq!(detach(name, &["--rule", "second"]), json!(["second"]), "{name}");
        assert_eq!(list(name)["waiting"][0]["rules"].as_array().map(Vec::len), Some(1), "{name}");
        assert_eq!(detach(name, &[]), json!(["first"]), "{name}");
        error(&world.cli().run(&["detach", name]), 3);
    }
    assert_eq!(steered_and_waiting(&world)[1], Vec::<String>::new());
    // Of one that is steered, and is to be changed.
    changed.ip("link set lo down");
    let more = text("original").replace("\"first\"", "\"other\"");
    fs::write(&path, more).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["SIGHUP: the file is applied", "set_aside=4"]);
    let name = format!("path:{}", changed.path().display());
    let detached = world.cli().json(&["detach", &name, "--rule", "other"]);
    assert_eq!((&detached["rules"], &detached["steered"]), (&json!(["other"]), &json!(true)));
    assert_eq!(detach(&name, &[]), json!(["first", "second"]));
    assert_eq!(steered_and_waiting(&world).map(|targets| targets.contains(&changed.target())), [false; 2]);
    error(&world.cli().run(&["detach", &name]), 3);
}
