//! `sk_lookup` programs of others in the same namespace. Ours plays the part of theirs.

use redirector::{
    config::RuleSpec,
    kernel::{Ingress, Instance, PROGRAM, RuleSet, Shared, attached_programs},
    matcher::{Placed, compile},
    sys::bpf::{self, Instruction},
};
use redirector_ebpf::{CONSUMER_RELAY, FAMILY_IPV4, FAMILY_IPV6, PROTOCOL_TCP, slot};
use redirector_tests::{
    eventually::eventually,
    server::{Server, echo},
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::{Value, json};
use std::{os::fd::AsFd as _, sync::Arc};

use super::SECOND;

/// A program that somebody else has attached to the pod, with this rule.
pub(super) fn attach_foreign(world: &World, rule: Value) -> Instance {
    attach_as("foreign", world, rule)
}

/// The same, known by this name.
fn attach_as(name: &'static str, world: &World, rule: Value) -> Instance {
    let (shared, rule_set) = (Arc::new(Shared::named(name)), rule_set(rule));
    let instance = Instance::load_with(&shared, &rule_set, 1, Ingress::Read).expect("load a second program");
    instance.attach(world.net.pod.open().as_fd()).expect("attach");
    instance
}

/// Gives a foreign program another rule.
pub(super) fn publish_foreign(instance: &Instance, rule: Value) {
    instance.publish(&rule_set(rule), 1).expect("publish");
}

fn rule_set(rule: Value) -> RuleSet {
    let rule: RuleSpec = serde_json::from_value(rule).expect("a rule");
    let rule = rule.named("foreign".parse().expect("a name"));
    compile([Placed::new(&rule, 0)]).expect("few rules").into()
}

/// Takes a foreign program away. Closing its fds does it, but other tests start programs at the same time, which
/// have them too between fork and exec.
#[track_caller]
pub(super) fn detach_foreign(world: &World, foreign: Instance) {
    let id = foreign.program_id().expect("ask the program");
    drop(foreign);
    wait_until_gone(world, id);
}

#[track_caller]
fn wait_until_gone(world: &World, id: u32) {
    eventually("the foreign program is gone", super::SECOND, || {
        let programs = attached_programs(world.net.pod.open().as_fd()).expect("ask for programs");
        if programs.iter().all(|program| program.id != id) { Ok(()) } else { Err(programs) }
    });
}

fn nothing() -> Value {
    json!({ "match": ["tcp:9"], "to": ["pass"] })
}

#[test]
fn foreign_programs_are_reported_and_left_alone() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let foreign = attach_foreign(&world, nothing());
    let id = foreign.program_id().unwrap();
    let answer = world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(answer["foreign_programs"], json!([{ "id": id, "name": "foreign" }]), "{answer:#}");
    assert_eq!(world.pod()["foreign_programs"], answer["foreign_programs"]);
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
    }
    // Our own is not foreign, and is the second of two.
    let programs = attached_programs(world.net.pod.open().as_fd()).unwrap();
    let ids: Vec<_> = programs.iter().map(|program| program.id).collect();
    let pod = world.pod();
    assert_eq!(ids, [id, u32::try_from(count(&pod, "/program/id")).unwrap()], "{pod:#}");
    world.detach();
    let programs = attached_programs(world.net.pod.open().as_fd()).unwrap();
    assert_eq!(programs.len(), 1, "{programs:?}");
    detach_foreign(&world, foreign);
}

#[test]
fn a_foreign_program_that_comes_later_is_reported_by_the_next_attach() {
    let world = World::new();
    let answer = world.steer("http", "tcp:80", "reject");
    assert_eq!(answer["foreign_programs"], json!([]), "{answer:#}");
    let foreign = attach_foreign(&world, nothing());
    let answer = world.steer("http", "tcp:80", "reject");
    assert_eq!(answer["foreign_programs"][0]["id"], foreign.program_id().unwrap(), "{answer:#}");
    detach_foreign(&world, foreign);
    let answer = world.steer("http", "tcp:80", "reject");
    assert_eq!(answer["foreign_programs"], json!([]), "{answer:#}");
}

/// Detaches the link of the daemon's program.
fn detach_ours(world: &World) {
    let id = u32::try_from(count(&world.pod(), "/program/link")).unwrap();
    bpf::link_detach(bpf::link_by_id(id).unwrap().as_fd()).unwrap();
}

#[test]
fn a_link_that_somebody_has_detached_is_put_back_and_counted() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    detach_ours(&world);
    eventually("it is attached again", 2 * SECOND, || {
        let pod = world.pod();
        let is_back = pod["state"] == "steered" && count(&pod, "/drift/links_restored") == 1;
        if is_back { Ok(()) } else { Err(pod) }
    });
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    // Who attaches does not wait for that, and does not hear that nothing has changed.
    let attached = |expected: [&str; 2]| {
        let answer = world.steer("http", "tcp:80", &proxy.destination());
        assert!(expected.contains(&answer["result"].as_str().unwrap()), "{answer:#}");
        assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    };
    detach_ours(&world);
    // The daemon may have seen it first.
    attached(["changed", "unchanged"]);
    attached(["unchanged", "unchanged"]);
    assert_eq!(count(&world.pod(), "/drift/links_restored"), 2);
    // What is detached by its user stays so.
    world.detach();
    assert_eq!(world.list()["namespaces"], json!([]));
}

#[test]
fn what_a_foreign_program_has_selected_stays_with_it_and_is_counted() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let theirs = world.net.pod.enter(|| [at(POD_V4, 0), at(POD_V6, 0)].map(redirector_tests::server::listen));
    let foreign = attach_foreign(&world, json!({ "match": ["tcp:80"], "to": ["127.0.0.1:1"] }));
    foreign.set_listener(slot(CONSUMER_RELAY, PROTOCOL_TCP, FAMILY_IPV4), theirs[0].as_fd()).unwrap();
    foreign.set_listener(slot(CONSUMER_RELAY, PROTOCOL_TCP, FAMILY_IPV6), theirs[1].as_fd()).unwrap();
    let _server = Server::of(theirs.into(), "foreign", echo);
    world.steer("http", "tcp:80,81", &proxy.destination());
    for (number, pod) in [POD_V4, POD_V6].into_iter().enumerate() {
        assert_eq!(world.answer(at(pod, 80)), "foreign");
        let rule = world.rule("http");
        assert_eq!(count(&rule, "/counters/unavailable_reasons/EEXIST"), number as u64 + 1, "{rule:#}");
        assert_eq!(world.answer(at(pod, 81)), "proxy");
    }
    detach_foreign(&world, foreign);
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
}

#[test]
fn a_namespace_with_all_the_programs_it_can_have_is_refused_and_nothing_is_left() {
    let world = World::new();
    let before = redirector_tests::snapshot::Snapshot::of(&world.net.pod);
    let fds = world.daemon.fds_at_rest();
    let foreign = bpf::sk_lookup_program(&[Instruction::result(1), Instruction::EXIT], "foreign").unwrap();
    let id = bpf::program_info(foreign.as_fd()).unwrap().id;
    let attach = |_| bpf::link_create(foreign.as_fd(), world.net.pod.open().as_fd()).unwrap();
    let links: Vec<_> = (0..64).map(attach).collect();
    let target = world.target();
    let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", "reject"]);
    assert!(redirector_tests::cli::error(&outcome, 1).contains(&target), "{outcome}");
    assert_eq!(world.list()["namespaces"], json!([]));
    drop((foreign, links));
    wait_until_gone(&world, id);
    redirector_tests::snapshot::Snapshot::of(&world.net.pod).assert_same_as(&before);
    world.daemon.eventually_has_fds(fds);
    world.steer("http", "tcp:80", "reject");
}

#[test]
fn a_second_redirector_is_refused_unless_it_is_to_coexist() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let other = attach_as(PROGRAM, &world, json!({ "match": ["tcp:81"], "to": ["reject"] }));
    let id = other.program_id().unwrap().to_string();
    let before = redirector_tests::snapshot::Snapshot::of(&world.net.pod);
    let target = world.target();
    let attach = |more: &[&str]| {
        let destination = proxy.destination();
        let arguments = ["attach", &target, "--match", "tcp:80-81", "--to", &destination, "--name", "http"];
        world.cli().run(&[&arguments, more].concat())
    };
    for dry_run in [&["--dry-run"][..], &[]] {
        let outcome = attach(dry_run);
        let error = redirector_tests::cli::error(&outcome, 1);
        assert!(error.contains(&target) && error.contains(&id), "{error}");
        assert!(outcome.stderr.contains("--coexist"), "{outcome}");
    }
    assert_eq!(world.list()["namespaces"], json!([]));
    redirector_tests::snapshot::Snapshot::of(&world.net.pod).assert_same_as(&before);
    attach(&["--coexist"]).success();
    assert_eq!(world.rule("http")["coexist"], true);
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
        // Theirs says no and selects nothing; ours selects: see the table of the kernel's own tests.
        assert_eq!(world.answer(at(pod, 81)), "proxy");
    }
    // What is there already is unchanged, with or without.
    let answer = attach(&["--coexist", "--json"]).success();
    assert!(answer.stdout.contains("\"unchanged\""), "{answer}");
    let error = redirector_tests::cli::error(&attach(&["--priority", "1"]), 1);
    assert!(error.contains(&id), "{error}");
    detach_foreign(&world, other);
    attach(&[]).success();
    assert_eq!(world.rule("http").get("coexist"), None);
}

#[test]
fn original_does_not_coexist() {
    let world = World::new();
    let outcome =
        world.cli().run(&["attach", &world.target(), "--match", "tcp:80", "--to", "original", "--coexist"]);
    let error = redirector_tests::cli::error(&outcome, 2);
    assert!(error.contains("`original`") && error.contains("coexist"), "{error}");
    // Nor another way to the same.
    let (target, itself) = (world.target(), format!("{}/127.0.0.1:8080", world.target()));
    let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", &itself, "--coexist"]);
    let error = redirector_tests::cli::error(&outcome, 1);
    assert!(error.contains(&itself) && error.contains("coexist"), "{error}");
    assert_eq!(world.list()["namespaces"], json!([]));
}
