//! What is made ahead of an attach: who takes it steers as if it had been made then.

use std::{os::fd::AsFd as _, process::Command, sync::Arc};

use redirector::{
    config::{Rule, RuleSpec},
    kernel::{Ingress, Instance, RuleSet, Shared, flow},
    matcher::{Placed, compile},
};
use redirector_tests::{
    daemon::{Daemon, binary},
    eventually::eventually,
    needs,
    netns::Netns,
    server::Server,
    topology::{CLIENT_V4, POD_V4, Topology, at},
    world::World,
};
use serde_json::{Value, json};

use super::SECOND;

const MOST: usize = 8;

fn shared() -> Arc<Shared> {
    Arc::new(Shared::default().with_stock(MOST))
}

fn rule(spec: Value) -> Rule {
    let spec: RuleSpec = serde_json::from_value(spec).expect("a rule");
    spec.named("one".parse().expect("a name"))
}

/// The rule set that rejects this.
fn rejecting(shared: &Shared, matching: &str) -> Arc<RuleSet> {
    let rule = rule(json!({ "match": [matching], "to": ["reject"] }));
    shared.rule_sets.with(compile([Placed::new(&rule, 0)]).expect("one rule"))
}

fn load(shared: &Arc<Shared>, rule_set: &RuleSet) -> Instance {
    Instance::load_with(shared, rule_set, 1, Ingress::Read).expect("load")
}

#[track_caller]
fn eventually_has(shared: &Shared, count: usize) {
    eventually("the stock is as large as it can be", SECOND, || {
        let now = shared.in_stock();
        if now == count { Ok(()) } else { Err(now) }
    });
}

/// Two attached instances whose rule sets are not those of any test, and a full stock for ports.
fn begun(shared: &Arc<Shared>, netns: &Netns) -> [Instance; 2] {
    let instances = ["tcp:1001", "tcp:1002"].map(|matching| {
        let instance = load(shared, &rejecting(shared, matching));
        instance.attach(netns.open().as_fd()).expect("attach");
        instance
    });
    eventually_has(shared, MOST);
    instances
}

#[track_caller]
fn assert_rejects(instance: &Instance, port: u16) {
    let run = |port| {
        let packet = flow(at(CLIENT_V4, 40_000), at(POD_V4, port));
        instance.test_run(&packet, 1).expect("BPF_PROG_TEST_RUN").verdict
    };
    assert_eq!((run(port), run(port + 1)), (0, 1), "{port}");
}

#[test]
fn what_is_taken_from_the_stock_decides_by_its_own_rules_and_is_made_again() {
    needs!(TestRun);
    let (shared, netns) = (shared(), Netns::new());
    let before = begun(&shared, &netns);
    let taken: Vec<_> = (0..4)
        .map(|number| {
            let port = 2000 + 10 * number;
            let instance = load(&shared, &rejecting(&shared, &format!("tcp:{port}")));
            assert_rejects(&instance, port);
            (instance, port)
        })
        .collect();
    assert_eq!(shared.in_stock(), MOST - taken.len(), "all of them were there");
    for (instance, port) in &taken {
        assert_rejects(instance, *port);
        assert_eq!(instance.counters.rule(0).expect("read counters").rejected, 2);
        assert_eq!(instance.counters.netns().expect("read counters").passed, 2);
        // It goes on as any other.
        instance.publish(&rejecting(&shared, "tcp:10.0.0.0/8:3000"), 40).expect("publish");
        assert!(instance.counters.capacity() >= 40);
    }
    assert_rejects(&before[0], 1001);
    taken[0].0.attach(netns.open().as_fd()).expect("attach");
    eventually_has(&shared, MOST);
}

#[test]
fn a_rule_set_that_another_namespace_has_is_in_the_kernel_once_again_a_moment_later() {
    let (shared, netns) = (shared(), Netns::new());
    let _before = begun(&shared, &netns);
    let id = |instance: &Instance| instance.rule_set_id().expect("ask the map").expect("a rule set");
    // Each namespace has compiled its own.
    let rule_sets = [(); 3].map(|()| rejecting(&shared, "tcp:80"));
    let [first, second, third] = [0, 1, 2].map(|number: usize| load(&shared, &rule_sets[number]));
    assert_eq!(shared.in_stock(), MOST - 3);
    let alone = [&first, &second, &third].map(id);
    assert!(alone[0] != alone[1] && alone[1] != alone[2], "{alone:?}");
    // One of them has another rule set before its turn comes.
    third.publish(&rejecting(&shared, "tcp:81"), 1).expect("publish");
    let other = id(&third);
    for instance in [&second, &third] {
        instance.attach(netns.open().as_fd()).expect("attach");
    }
    eventually("they share it", SECOND, || {
        let now = id(&second);
        if now == alone[0] { Ok(()) } else { Err(now) }
    });
    eventually_has(&shared, MOST);
    assert_eq!(id(&third), other);
}

#[test]
fn the_stock_has_what_was_asked_for_lately_and_nothing_that_looks_at_more() {
    let (shared, netns) = (shared(), Netns::new());
    let before = begun(&shared, &netns);
    let by_address = rejecting(&shared, "tcp:10.0.0.0/8:80");
    let made = load(&shared, &by_address);
    made.attach(netns.open().as_fd()).expect("attach");
    let verified = |instance: &Instance| instance.verified_instructions().expect("ask the kernel");
    // It is filled again as soon as nobody asks, and that may be at once.
    let take = |rule_set: &RuleSet| {
        eventually("one is taken from the stock", SECOND, || {
            eventually_has(&shared, MOST);
            let one = load(&shared, rule_set);
            let now = shared.in_stock();
            if now < MOST { Ok(one) } else { Err(now) }
        })
    };
    assert_eq!(verified(&take(&by_address)), verified(&made));
    assert_eq!(verified(&take(&rejecting(&shared, "tcp:82"))), verified(&before[0]));
}

#[test]
fn who_steers_nothing_or_wants_none_has_no_stock() {
    let (with, netns) = (shared(), Netns::new());
    let instances = begun(&with, &netns);
    for instance in &instances {
        assert_eq!(with.in_stock(), MOST);
        instance.detach();
    }
    assert_eq!(with.in_stock(), 0);
    // It comes again with the next that is steered, and goes while it is being made.
    instances[0].attach(netns.open().as_fd()).expect("attach");
    eventually("it comes again", SECOND, || if with.in_stock() > 0 { Ok(()) } else { Err("nothing") });
    drop(instances);
    redirector_tests::eventually::at_intervals(10, || assert_eq!(with.in_stock(), 0));

    let none = Arc::<Shared>::default();
    let one = load(&none, &rejecting(&none, "tcp:80"));
    let two = load(&none, &rejecting(&none, "tcp:80"));
    for instance in [&one, &two] {
        instance.attach(netns.open().as_fd()).expect("attach");
    }
    redirector_tests::eventually::at_intervals(10, || assert_eq!(none.in_stock(), 0));
}

#[test]
fn a_daemon_makes_programs_ahead_while_it_steers_and_has_files_for_it() {
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 1000 && exec \"$@\"", "sh"]).arg(binary()).arg("run");
    for (daemon, count) in [(Daemon::start(), MOST), (Daemon::spawn(&mut few, &[]), 0)] {
        let (world, other) = (World::with(daemon, Topology::new()), Netns::new());
        let fds = world.daemon.fds_at_rest();
        let server = Server::here("server");
        world.steer("one", "tcp:80", &server.destination());
        world.cli().json(&["attach", &other.target(), "--match", "tcp:80", "--to", "reject"]);
        eventually("they are made", SECOND, || {
            let now = world.daemon.unattached_programs();
            if now == count { Ok(()) } else { Err(now) }
        });
        // With one of them.
        world.detach();
        world.steer("one", "tcp:80", &server.destination());
        assert_eq!(world.answer(at(POD_V4, 80)), "server");
        world.detach();
        world.cli().json(&["detach", &other.target()]);
        world.daemon.eventually_has_fds(fds);
        assert_eq!(world.daemon.unattached_programs(), 0);
    }
}
