//! Attach, change and detach under traffic: what is open goes on, what is new goes where it should.

use std::sync::atomic::{AtomicBool, Ordering};

use redirector_tests::{
    client::{Conversation, Stop, answer, visit_here},
    eventually::eventually,
    scale::{often, very_often},
    server::Server,
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};

#[test]
fn an_open_connection_to_the_application_goes_on_through_attach_and_detach() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let app = Server::inside(&world.net.pod, "app", 80);
    let mut old: Vec<_> = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80))).into();
    let answer = world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(answer["existing_connections"], 2, "{answer:#}");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
    }
    for (conversation, server) in &mut old {
        assert_eq!(server, "app");
        conversation.echo("still there").unwrap();
    }
    world.detach();
    for (mut conversation, _) in old {
        conversation.echo("and now").unwrap();
        conversation.finish().unwrap();
    }
    assert_eq!(app.accepted(), 2);
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_steered_connection_goes_on_after_detach_and_new_ones_reach_the_application() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("http", "tcp:80", &proxy.destination());
    let mut steered: Vec<_> = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80))).into();
    let answer = world.detach();
    assert_eq!(answer["result"], "detached", "{answer:#}");
    assert_eq!(answer["rules"], serde_json::json!(["http"]), "{answer:#}");
    assert_eq!(answer["steered"], false, "{answer:#}");
    assert_eq!(answer["connections"], 2, "{answer:#}");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "app");
    }
    let list = world.list();
    assert_eq!(list["namespaces"], serde_json::json!([]), "{list:#}");
    assert_eq!(list["draining"][0]["connections"], 2, "{list:#}");
    assert_eq!(list["draining"][0]["cookie"], world.net.pod.cookie(), "{list:#}");
    for (conversation, server) in &mut steered {
        assert_eq!(server, "proxy");
        conversation.echo("still there").unwrap();
    }
    for (conversation, _) in steered {
        conversation.finish().unwrap();
    }
    eventually("nothing drains any more", super::SECOND, || {
        let list = world.list();
        if list["draining"] == serde_json::json!([]) { Ok(()) } else { Err(list) }
    });
}

#[test]
fn detach_of_one_rule_leaves_the_others_and_their_connections() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("one", "tcp:80", &proxy.destination());
    world.steer("two", "tcp:81", &proxy.destination());
    let (mut one, _) = world.open(at(POD_V4, 80));
    let (mut two, _) = world.open(at(POD_V4, 81));
    let answer = world.cli().json(&["detach", &world.target(), "--rule", "one"]);
    assert_eq!(answer["steered"], true, "{answer:#}");
    assert_eq!(answer["rules"], serde_json::json!(["one"]), "{answer:#}");
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
    assert_eq!(world.answer(at(POD_V4, 81)), "proxy");
    one.echo("still there").unwrap();
    two.echo("still there").unwrap();
    // The last rule takes the steering with it.
    let answer = world.cli().json(&["detach", &world.target(), "--rule", "two"]);
    assert_eq!(answer["steered"], false, "{answer:#}");
    assert_eq!(world.answer(at(POD_V4, 81)), "refused");
    one.finish().unwrap();
    two.finish().unwrap();
}

#[test]
fn a_rule_that_changes_again_and_again_loses_no_connection_of_four_clients() {
    // Of which the kernel keeps one in a map of another size than the other.
    let ports =
        |first: usize| (0..60).map(|item| (first + 1000 * item).to_string()).collect::<Vec<_>>().join(",");
    let matches = ["tcp:80".to_owned(), format!("tcp:80,{} --match tcp:{}", ports(1000), ports(1500))];
    let (world, one, two) = (World::new(), Server::here("one"), Server::here("two"));
    world.steer("http", "tcp:80", &one.destination());
    let visits = world.under_load(&["one", "two"], || {
        for change in 0..very_often() {
            let (server, name) = if change % 2 == 0 { (&two, "two") } else { (&one, "one") };
            let answer = world.steer("http", &matches[change / 2 % 2], &server.destination());
            assert_eq!(answer["result"], "changed", "{answer:#}");
            // Whoever connects after the answer gets the new destination.
            assert_eq!(world.answer(at(POD_V4, 80)), name, "after change {change}");
        }
    });
    println!("{visits} visits; one served {}, two {}", one.accepted(), two.accepted());
    // Without the visits of the four these would be half as many as there are changes.
    assert!(one.accepted() > very_often() && two.accepted() > very_often());
    let pod = world.eventually_at_rest();
    assert_eq!(pod["connections"]["failed"], serde_json::json!({}), "{pod:#}");
    assert_eq!(count(&pod, "/connections/accepted"), (one.accepted() + two.accepted()) as u64, "{pod:#}");
}

#[test]
fn an_open_connection_stays_with_its_destination_when_the_rule_changes() {
    let (world, one, two) = (World::new(), Server::here("one"), Server::here("two"));
    world.steer("http", "tcp:80", &one.destination());
    let (mut old, _) = world.open(at(POD_V4, 80));
    world.steer("http", "tcp:80", &two.destination());
    old.echo("still there").unwrap();
    assert_eq!(world.answer(at(POD_V4, 80)), "two");
    old.finish().unwrap();
}

#[test]
fn attach_and_detach_again_and_again_under_load_loses_no_connection() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    let fds = world.daemon.fds_at_rest();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stop = Stop(&done);
        let client = scope.spawn(|| {
            world.net.client.enter(|| {
                let mut served = [0_usize; 2];
                while !done.load(Ordering::Relaxed) {
                    match visit_here(at(POD_V4, 80)) {
                        Ok(greeting) => served[usize::from(greeting.server == "proxy")] += 1,
                        Err(error) => return Err(format!("after {served:?}: {error}")),
                    }
                }
                Ok(served)
            })
        });
        for _ in 0..often() {
            world.steer("http", "tcp:80", &proxy.destination());
            world.detach();
        }
        drop(stop);
        let served = client.join().unwrap().expect("no connection fails");
        println!("app and proxy served {served:?}");
    });
    assert_eq!(answer(&world.net.client, at(POD_V4, 80)), "app");
    world.daemon.eventually_has_fds(fds);
}

#[test]
fn a_namespace_that_drains_can_be_steered_again() {
    let (world, one, two) = (World::new(), Server::here("one"), Server::here("two"));
    world.steer("http", "tcp:80", &one.destination());
    let (mut first, _) = world.open(at(POD_V4, 80));
    world.detach();
    world.steer("http", "tcp:80", &two.destination());
    let (mut second, server) = world.open(at(POD_V4, 80));
    assert_eq!(server, "two");
    let list = world.list();
    assert_eq!(list["namespaces"][0]["connections"]["active"], 1, "{list:#}");
    assert_eq!(list["draining"][0]["connections"], 1, "{list:#}");
    first.echo("still there").unwrap();
    first.finish().unwrap();
    second.echo("still there").unwrap();
    world.detach();
    second.echo("still there").unwrap();
    second.finish().unwrap();
}

#[test]
fn an_identical_attach_changes_nothing_and_says_so() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    world.visit(at(POD_V4, 80));
    let before = world.eventually_at_rest();
    let answer = world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(answer["result"], "unchanged", "{answer:#}");
    let (conversation, _): (Conversation, _) = world.open(at(POD_V4, 80));
    conversation.finish().unwrap();
    let after = world.eventually_at_rest();
    for same in ["/program", "/listeners", "/rules/0/match", "/rules/0/to"] {
        assert_eq!(before.pointer(same), after.pointer(same));
    }
    assert_eq!(
        count(&after, "/rules/0/counters/steered"),
        2,
        "an unchanged rule keeps its counters: {after:#}"
    );
}
