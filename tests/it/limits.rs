//! Open files: what connections and namespaces take of them, and what is left.

use std::process::Command;

use redirector_tests::{
    cli::error,
    client::Conversation,
    daemon::{Daemon, binary},
    eventually::eventually,
    netns::Netns,
    server::Server,
    topology::Topology,
    world::{World, count},
};

use crate::{SECOND, places::all_of};

/// So many files are few: with them there are 96 connections beside one namespace.
const FILES: &str = "--nofile=256:256";

fn world() -> World {
    let mut command = Command::new("prlimit");
    command.arg(FILES).arg(binary()).arg("run");
    World::with(Daemon::spawn(&mut command, &[]), Topology::new())
}

/// Steers a namespace to a server. What the command line says where it is refused.
fn attach(world: &World, target: &str, proxy: &Server) -> Result<(), String> {
    let to = proxy.destination();
    let outcome = world.cli().run(&["attach", target, "--name", "http", "--match", "tcp:80", "--to", &to]);
    if outcome.status.success() { Ok(()) } else { Err(error(&outcome, 1)) }
}

/// That every command gets its files, and no connection lacks one.
#[track_caller]
fn assert_commands_work(world: &World, of: &[&Topology], open: &mut [Conversation]) {
    let listed = world.list()["namespaces"].as_array().unwrap().clone();
    for net in of {
        let cookie = net.pod.cookie();
        let one = listed.iter().find(|one| one["cookie"] == cookie).unwrap();
        assert_eq!(count(one, "/connections/accept_exhausted"), 0, "{one:#}");
    }
    open.iter_mut().for_each(|one| one.echo("still there").unwrap());
}

#[test]
fn beside_many_namespaces_and_all_connections_that_there_can_be_commands_get_their_files() {
    let (world, second, proxy) = (world(), Topology::new(), Server::here("proxy"));
    let others: Vec<_> = (0..17).map(|_| Netns::new()).collect();
    for pod in [&world.net.pod, &second.pod].into_iter().chain(&others[1..]) {
        attach(&world, &pod.target(), &proxy).unwrap();
    }
    let mut open: Vec<_> = [&world.net, &second].into_iter().flat_map(all_of).collect();
    assert_eq!(open.len(), 22, "(256 files - 256 / 8 - 10 for each of 18 namespaces) / 2");
    assert_commands_work(&world, &[&world.net, &second], &mut open);
    attach(&world, &others[0].target(), &proxy).unwrap();
    world.cli().json(&["detach", &others[1].target()]);
    assert_commands_work(&world, &[&world.net, &second], &mut open);
}

#[test]
fn a_namespace_for_which_connections_leave_no_files_is_refused_and_commands_go_on() {
    let (world, second, proxy) = (world(), Topology::new(), Server::here("proxy"));
    for pod in [&world.net.pod, &second.pod] {
        attach(&world, &pod.target(), &proxy).unwrap();
    }
    let mut open: Vec<_> = [&world.net, &second].into_iter().flat_map(all_of).collect();
    assert_eq!(open.len(), 96, "three quarters of 256 files, by two");
    let others: Vec<_> = (0..6).map(|_| Netns::new()).collect();
    let refused = others.iter().map(|pod| attach(&world, &pod.target(), &proxy));
    let refused: Vec<_> = refused.filter_map(Result::err).collect();
    assert!((3..6).contains(&refused.len()), "some come: {refused:#?}");
    assert!(refused.iter().all(|error| error.contains("too few open files")), "{refused:#?}");
    assert_commands_work(&world, &[&world.net, &second], &mut open);
    let last = others.last().unwrap().target();
    attach(&world, &last, &proxy).unwrap_err();
    world.cli().json(&["detach", &others[0].target()]);
    let again = || attach(&world, &last, &proxy);
    eventually("what the daemon had of the one that is gone is closed", 2 * SECOND, again);
    assert_commands_work(&world, &[&world.net, &second], &mut open);
}
