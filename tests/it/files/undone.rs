//! What fails when much of a file has been done already: all of it is taken back.

use std::{fs, os::fd::AsFd as _, process::Command, sync::Arc};

use redirector::kernel::{Ingress, Instance, RuleSet, Shared};
use redirector_tests::{
    daemon::{Daemon, binary},
    netns::Netns,
    scale::often,
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, at},
    world::World,
};
use serde_json::json;

use super::{apply, export, file, namespace, said};

/// Programs that one namespace can have (`MAX_BPF_CGROUP_PROGS`'s like, kernel/bpf/net_namespace.c).
const MOST_PROGRAMS: usize = 64;

#[test]
fn a_namespace_that_takes_no_program_undoes_all_others() {
    let (world, one, two) = (World::new(), Server::here("one"), Server::here("two"));
    let (fresh, full): (Vec<_>, _) = ((0..5).map(|_| Netns::new()).collect(), Netns::new());
    let rules =
        |server: &Server| json!([{"name": "http", "match": ["tcp:80"], "to": [server.destination()]}]);
    let first = file(&[
        namespace(&world.target(), &rules(&one)),
        namespace(&world.net.client.target(), &rules(&one)),
    ]);
    said(apply(&world, &first, &[]));
    let (before, fds) = (export(&world), world.daemon.fds_at_rest());
    let looks: Vec<_> = fresh.iter().map(Snapshot::of).collect();
    let shared = Arc::new(Shared::named("foreign"));
    let programs: Vec<_> = (0..MOST_PROGRAMS)
        .map(|_| {
            let one = Instance::load_with(&shared, &RuleSet::default(), 1, Ingress::Read).expect("load");
            one.attach(full.open().as_fd()).expect("attach");
            one
        })
        .collect();
    // One is changed, one goes, some are new, and then there is one that cannot be.
    let mut wanted = vec![namespace(
        &world.target(),
        &json!([
            {"name": "http", "match": ["tcp:80"], "to": [two.destination()]},
            {"name": "drop", "match": ["any:81"], "to": ["drop"]},
        ]),
    )];
    wanted.extend(fresh.iter().map(|one| namespace(&one.target(), &rules(&two))));
    wanted.push(namespace(&full.target(), &rules(&two)));
    let text = file(&wanted);
    for _ in 0..3 {
        let outcome = apply(&world, &text, &[]);
        assert_eq!(outcome.code(), 1, "{outcome}");
        assert!(outcome.stderr.contains(&full.target()), "{outcome}");
        assert_eq!(export(&world), before);
        assert_eq!(world.answer(at(POD_V4, 80)), "one");
        for (netns, before) in fresh.iter().zip(&looks) {
            Snapshot::of(netns).assert_same_as(before);
        }
        world.daemon.eventually_has_fds(fds);
    }
    drop(programs);
    // Now it can.
    redirector_tests::eventually::eventually("the programs are gone", crate::SECOND, || {
        let outcome = apply(&world, &text, &[]);
        if outcome.code() == 0 { Ok(()) } else { Err(outcome) }
    });
    assert_eq!(world.answer(at(POD_V4, 80)), "two");
    said(apply(&world, &first, &[]));
    assert_eq!(export(&world), before);
    world.daemon.eventually_has_fds(fds);
}

#[test]
fn a_daemon_that_runs_out_of_files_on_the_way_does_nothing() {
    let server = Server::here("server");
    let pods: Vec<_> = (0..12).map(|_| Netns::new()).collect();
    let before: Vec<_> = pods.iter().map(Snapshot::of).collect();
    let rules =
        json!([{"match": ["any:80"], "to": ["drop"]}, {"match": ["tcp:81"], "to": [server.destination()]}]);
    let all: Vec<_> = pods.iter().map(|pod| namespace(&pod.target(), &rules)).collect();
    let mut refused = 0;
    // From hardly enough to be started with, to enough for nearly all.
    for limit in (40..160).step_by(if often() < 100 { 24 } else { 8 }) {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}:{limit}")).arg("--").arg(binary()).arg("run");
        let daemon = Daemon::spawn(&mut command, &[]);
        let path = daemon.dir().join("file.toml");
        fs::write(&path, file(&all)).unwrap();
        let path = path.to_str().unwrap();
        let fds = daemon.fds_at_rest();
        let outcome = daemon.cli().run(&["apply", path]);
        if outcome.code() == 0 {
            break;
        }
        refused += 1;
        assert_eq!(outcome.code(), 1, "{outcome}");
        assert!(outcome.stderr.contains("Too many open files"), "{limit}{outcome}");
        daemon.eventually_has_fds(fds);
        for (pod, before) in pods.iter().zip(&before) {
            Snapshot::of(pod).assert_same_as(before);
        }
        assert_eq!(daemon.cli().json(&["list"])["namespaces"], json!([]));
        // It goes on: nothing of what failed is in the way.
        fs::write(path, file(&all[..1])).unwrap();
        if limit >= 64 {
            daemon.cli().run(&["apply", path]).success();
        }
    }
    assert!(refused >= 3, "{refused}");
}
