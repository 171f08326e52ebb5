//! `apply` that is killed, or whose daemon is: what is there is what was before or what was to be.

use std::{fs, process::Command};

use redirector_tests::{
    command::{pid, spawn},
    daemon::{Daemon, binary},
    dir::Dir,
    netns::Netns,
    scale::often,
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, at},
    world::World,
};
use serde_json::json;

use super::{apply, export, file, namespace, said};

/// Lets the other side get on, a little further each time: what it is doing when this returns is anything.
fn wait_a_little(turn: usize) {
    for _ in 0..turn {
        // Some microseconds each, and no time is looked at.
        drop(fs::metadata("/proc/self/status"));
    }
}

#[test]
fn an_apply_that_is_killed_leaves_the_file_before_or_the_new_one() {
    let (world, one, two) = (World::new(), Server::here("one"), Server::here("two"));
    let targets = [world.target(), world.net.client.target()];
    let texts = [&one, &two].map(|server| {
        let rules = json!([{"name": "http", "match": ["tcp:80"], "to": [server.destination()]}, {"name": server.destination().replace(':', "-"), "match": ["tcp:81"], "to": ["reject"]}]);
        file(&targets.each_ref().map(|target| namespace(target, &rules)))
    });
    let dir = Dir::new();
    let paths = ["a.toml", "b.toml"].map(|name| dir.join(name));
    let exports = [0, 1].map(|which| {
        fs::write(&paths[which], &texts[which]).unwrap();
        said(apply(&world, &texts[which], &[]));
        export(&world)
    });
    let mut found = [0, 0];
    for turn in 0..often() {
        // From that which is there to the other.
        let from = export(&world);
        let to = usize::from(from == exports[0]);
        let mut child = spawn(&mut world.cli().command(&["apply", paths[to].to_str().unwrap()]));
        wait_a_little(turn * 20);
        nix::sys::signal::kill(pid(&child), nix::sys::signal::Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        let now = export(&world);
        let which = exports.iter().position(|one| *one == now);
        let which = which.unwrap_or_else(|| panic!("neither the one nor the other:\n{now}"));
        found[usize::from(which == to)] += 1;
        let answer = world.answer(at(POD_V4, 80));
        // What the daemon had been told is done to its end, perhaps after that look.
        assert!(["one", "two"].contains(&&*answer), "{answer}");
    }
    println!("of {} that were killed {} had done nothing, and {} all", often(), found[0], found[1]);
    // Whatever was last, it can be changed as ever.
    said(apply(&world, &texts[0], &[]));
    assert_eq!(export(&world), exports[0]);
    assert_eq!(world.answer(at(POD_V4, 80)), "one");
}

#[test]
fn a_daemon_that_is_killed_while_it_applies_leaves_nothing_and_starts_with_its_file() {
    let server = Server::here("server");
    let pods: Vec<_> = (0..6).map(|_| Netns::new()).collect();
    let before: Vec<_> = pods.iter().map(Snapshot::of).collect();
    let rules = json!([{"name": "http", "match": ["tcp:80", "udp:80"], "to": ["drop"]}, {"match": ["tcp:81"], "to": [server.destination()]}]);
    let text = file(&pods.iter().map(|pod| namespace(&pod.target(), &rules)).collect::<Vec<_>>());
    let dir = Dir::new();
    let path = dir.join("file.toml");
    fs::write(&path, &text).unwrap();
    let path = path.to_str().unwrap();
    for turn in 0..often() / 4 {
        let mut daemon = Daemon::start();
        let mut child = spawn(&mut daemon.cli().command(&["apply", path]));
        wait_a_little(turn * 100);
        daemon.kill();
        child.wait().unwrap();
        for (pod, before) in pods.iter().zip(&before) {
            Snapshot::of(pod).assert_same_as(before);
        }
    }
    let daemon = Daemon::spawn(Command::new(binary()).arg("run"), &["--config", path]);
    let list = daemon.cli().json(&["list"]);
    assert_eq!(list["namespaces"].as_array().unwrap().len(), pods.len(), "{list:#}");
    let outcome = daemon.cli().run(&["apply", path, "--dry-run"]).success();
    assert_eq!(outcome.stdout.trim(), "would be applied: 0 added, 0 changed, 0 removed, 12 unchanged");
}
