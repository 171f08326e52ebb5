//! The harness itself: what every other test trusts.

use std::time::Duration;

use redirector_tests::{
    client::{Conversation, answer, visit},
    eventually::eventually,
    netns::Netns,
    server::Server,
    snapshot::Snapshot,
    topology::{PAIRS, Topology, at},
};

#[test]
fn a_client_reaches_the_pod_over_both_families_without_redirector() {
    let net = Topology::new();
    let app = Server::inside(&net.pod, "app", 80);
    for (pod, client) in PAIRS {
        let greeting = visit(&net.client, at(pod, 80)).unwrap();
        assert_eq!(greeting.server, "app");
        assert_eq!(greeting.peer.unwrap().ip(), client);
        assert_eq!(greeting.local, Some(at(pod, 80)));
        assert_eq!(answer(&net.client, at(pod, 81)), "refused");
    }
    assert_eq!(app.accepted(), 2);
}

#[test]
fn two_snapshots_of_an_untouched_namespace_are_the_same_whatever_passed_through() {
    let net = Topology::new();
    let _app = Server::inside(&net.pod, "app", 80);
    let before = Snapshot::of(&net.pod);
    for (pod, _) in PAIRS {
        assert_eq!(answer(&net.client, at(pod, 80)), "app");
    }
    Snapshot::of(&net.pod).assert_same_as(&before);
}

#[test]
fn a_namespace_dies_when_nothing_of_the_harness_is_open_in_it() {
    for pod in [Netns::new(), Netns::of_process()] {
        let net = Topology::around(pod);
        let app = Server::inside(&net.pod, "app", 80);
        let mut open = Conversation::open(&net.client, at(PAIRS[0].0, 80)).unwrap();
        open.greeting().unwrap();
        net.pod.delete();
        assert!(net.is_joined(), "sockets keep a namespace alive");
        drop(app);
        drop(open);
        eventually("the namespace is gone", Duration::from_secs(1), || {
            if net.is_joined() { Err("it lives") } else { Ok(()) }
        });
    }
}
