//! `sk_lookup` programs of others in the same namespace. Ours plays the part of theirs.

use redirector::{
    config::RuleSpec,
    kernel::{Instance, Link, attached_programs},
    matcher::{Placed, compile},
};
use redirector_ebpf::{CONSUMER_RELAY, FAMILY_IPV4, FAMILY_IPV6, slot};
use redirector_tests::{
    eventually::eventually,
    server::{Server, echo},
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::{Value, json};
use std::os::fd::AsFd as _;

/// A program that somebody else has attached to the pod, with this rule.
fn attach_foreign(world: &World, rule: Value) -> (Instance, Link) {
    let instance = Instance::load().expect("load a second program");
    let rule: RuleSpec = serde_json::from_value(rule).expect("a rule");
    let rule = rule.named("foreign".parse().expect("a name"));
    instance
        .publish(
            &compile([Placed { rule: &rule, index: 0, consumer: CONSUMER_RELAY, flags: 0 }])
                .expect("few rules"),
        )
        .expect("publish");
    let link = instance.attach(world.net.pod.open().as_fd()).expect("attach");
    (instance, link)
}

/// Takes a foreign program away. Closing its fds does it, but other tests start programs at the same time, which
/// have them too between fork and exec.
#[track_caller]
fn detach_foreign(world: &World, (foreign, links): (Instance, impl Sized)) {
    let id = foreign.program_id().expect("ask the program");
    drop((foreign, links));
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
    let (foreign, link) = attach_foreign(&world, nothing());
    let id = foreign.program_id().unwrap();
    let answer = world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(answer["foreign_programs"], json!([{ "id": id, "name": "redirector" }]), "{answer:#}");
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
    detach_foreign(&world, (foreign, link));
}

#[test]
fn a_foreign_program_that_comes_later_is_reported_by_the_next_attach() {
    let world = World::new();
    let answer = world.steer("http", "tcp:80", "reject");
    assert_eq!(answer["foreign_programs"], json!([]), "{answer:#}");
    let (foreign, link) = attach_foreign(&world, nothing());
    let answer = world.steer("http", "tcp:80", "reject");
    assert_eq!(answer["foreign_programs"][0]["id"], foreign.program_id().unwrap(), "{answer:#}");
    detach_foreign(&world, (foreign, link));
    let answer = world.steer("http", "tcp:80", "reject");
    assert_eq!(answer["foreign_programs"], json!([]), "{answer:#}");
}

#[test]
fn what_a_foreign_program_has_selected_stays_with_it_and_is_counted() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let theirs = world.net.pod.enter(|| [at(POD_V4, 0), at(POD_V6, 0)].map(redirector_tests::server::listen));
    let (foreign, link) = attach_foreign(&world, json!({ "match": ["tcp:80"], "to": ["127.0.0.1:1"] }));
    foreign.set_listener(slot(CONSUMER_RELAY, FAMILY_IPV4), theirs[0].as_fd()).unwrap();
    foreign.set_listener(slot(CONSUMER_RELAY, FAMILY_IPV6), theirs[1].as_fd()).unwrap();
    let _server = Server::of(theirs.into(), "foreign", echo);
    world.steer("http", "tcp:80,81", &proxy.destination());
    for (number, pod) in [POD_V4, POD_V6].into_iter().enumerate() {
        assert_eq!(world.answer(at(pod, 80)), "foreign");
        let rule = world.rule("http");
        assert_eq!(count(&rule, "/counters/unavailable_reasons/EEXIST"), number as u64 + 1, "{rule:#}");
        assert_eq!(world.answer(at(pod, 81)), "proxy");
    }
    detach_foreign(&world, (foreign, link));
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
}

#[test]
fn a_namespace_with_all_the_programs_it_can_have_is_refused_and_nothing_is_left() {
    let world = World::new();
    let before = redirector_tests::snapshot::Snapshot::of(&world.net.pod);
    let fds = world.daemon.fds_at_rest();
    let foreign = Instance::load().unwrap();
    let links: Vec<_> = (0..64).map(|_| foreign.attach(world.net.pod.open().as_fd()).unwrap()).collect();
    let target = world.target();
    let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", "reject"]);
    assert!(redirector_tests::cli::error(&outcome, 1).contains(&target), "{outcome}");
    assert_eq!(world.list()["namespaces"], json!([]));
    detach_foreign(&world, (foreign, links));
    redirector_tests::snapshot::Snapshot::of(&world.net.pod).assert_same_as(&before);
    world.daemon.eventually_has_fds(fds);
    world.steer("http", "tcp:80", "reject");
}
