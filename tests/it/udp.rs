//! Rules that take UDP, by real traffic: `reject`, `drop`, `pass`.

use redirector_tests::{
    cli::error,
    server::Server,
    snapshot::Snapshot,
    topology::{PAIRS, POD_V4, at},
    udp::{assert_refused, bound, client, exchange, receive},
    world::{World, count},
};
use serde_json::json;

#[test]
fn what_is_rejected_gets_port_unreachable_and_the_rest_goes_on() {
    let world = World::new();
    let tcp = Server::inside(&world.net.pod, "app", 5353);
    for (pod, _) in PAIRS {
        let before = Snapshot::of(&world.net.pod);
        let [app, other] = [5353, 5354].map(|port| bound(&world.net.pod, at(pod, port)));
        let [to_app, to_other] = [5353, 5354].map(|port| client(&world.net.client, at(pod, port)));
        exchange(&to_app, &app, "before");
        world.steer("no", "udp:5353", "reject");
        assert_refused(&to_app);
        exchange(&to_other, &other, "another port");
        // TCP to the same port is not what the rule names.
        assert_eq!(world.answer(at(pod, 5353)), "app");
        // Who is inside is no other client.
        assert_refused(&client(&world.net.pod, at(pod, 5353)));
        let rule = world.rule("no");
        assert_eq!(count(&rule, "/counters/rejected"), 2, "{rule:#}");
        world.detach();
        exchange(&to_app, &app, "after");
        drop((app, other));
        Snapshot::of(&world.net.pod).assert_same_as(&before);
    }
    drop(tcp);
}

#[test]
fn what_is_dropped_is_heard_of_by_nobody() {
    let world = World::new();
    for (number, (pod, _)) in PAIRS.into_iter().enumerate() {
        let [app, other] = [5353, 5354].map(|port| bound(&world.net.pod, at(pod, port)));
        let [to_app, to_other] = [5353, 5354].map(|port| client(&world.net.client, at(pod, port)));
        world.steer("silent", "udp:5353", "drop");
        for _ in 0..3 {
            to_app.send(b"lost").expect("send");
        }
        // One way through the network: what was sent before has arrived, if it arrives at all.
        exchange(&to_other, &other, "another port");
        let rule = world.rule("silent");
        assert_eq!(count(&rule, "/counters/dropped"), 3, "{rule:#}");
        assert!(to_app.take_error().expect("SO_ERROR").is_none(), "the client must hear nothing");
        world.steer("silent", "udp:5353", "pass");
        exchange(&to_app, &app, "first");
        let rule = world.rule("silent");
        assert_eq!(count(&rule, "/counters/passed"), 1, "{rule:#}");
        world.detach();
        let sockets = world.net.pod.must("ss", &["-Hlnu"]).stdout;
        assert_eq!(sockets.lines().count(), 2, "number {number}: only the two of the test: {sockets}");
    }
}

#[test]
fn any_is_both_and_comes_after_one_of_them() {
    let world = World::new();
    let _app = [53, 80].map(|port| Server::inside(&world.net.pod, "app", port));
    world.steer("closed", "any:*", "reject");
    world.steer("names", "udp:53", "pass");
    for (pod, _) in PAIRS {
        let [names, other] = [53, 80].map(|port| bound(&world.net.pod, at(pod, port)));
        exchange(&client(&world.net.client, at(pod, 53)), &names, "a question");
        assert_refused(&client(&world.net.client, at(pod, 80)));
        assert_eq!(world.answer(at(pod, 53)), "refused");
        assert_eq!(world.answer(at(pod, 80)), "refused");
        drop(other);
    }
    // What is excepted is so in the protocol that the exception names.
    world.attach("--name closed --match any:* --except udp:80 --to reject");
    let app = bound(&world.net.pod, at(POD_V4, 80));
    exchange(&client(&world.net.client, at(POD_V4, 80)), &app, "excepted");
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

#[test]
fn sockets_for_udp_are_there_while_a_rule_needs_them() {
    let world = World::new();
    let sockets = |protocol: &str| {
        let listed = world.net.pod.must("ss", &["-Hln", protocol]).stdout;
        listed.lines().count()
    };
    world.steer("one", "tcp:80", "reject");
    assert_eq!((sockets("-t"), sockets("-u")), (0, 0), "there is nothing for the relay");
    world.steer("two", "udp:53", "drop");
    assert_eq!((sockets("-t"), sockets("-u")), (0, 2));
    world.steer("three", "tcp:53", "drop");
    assert_eq!((sockets("-t"), sockets("-u")), (2, 2));
    world.steer("two", "udp:53", "reject");
    assert_eq!((sockets("-t"), sockets("-u")), (2, 0));
    world.detach();
    assert_eq!((sockets("-t"), sockets("-u")), (0, 0));
}

#[test]
fn udp_is_taken_nowhere_else() {
    let world = World::new();
    let target = world.target();
    for (matching, to, corrected) in [
        ("udp:53", "127.0.0.1:53", "`tcp:53`"),
        ("any:10.0.0.0/8:53", "original", "`tcp:10.0.0.0/8:53`"),
        ("udp:[fd00::]:53", "unix:/run/x.sock", "`tcp:[fd00::]:53`"),
    ] {
        let outcome = world.cli().run(&["attach", &target, "--match", matching, "--to", to]);
        let error = error(&outcome, 2);
        assert!(error.contains(&format!("match `{matching}`")), "{error}");
        assert!(error.contains(&format!("`{to}`")) && error.contains(corrected), "{error}");
    }
    assert_eq!(world.list()["namespaces"], json!([]));
}

#[test]
fn a_match_that_takes_answers_to_clients_is_warned_of() {
    let world = World::new();
    let warnings = |matching: &str, to: &str| world.steer("rule", matching, to)["warnings"].to_string();
    assert!(warnings("udp:*", "reject").contains("32768-60999"));
    for (matching, to) in [("udp:53", "reject"), ("tcp:*", "reject"), ("udp:*", "pass")] {
        assert_eq!(warnings(matching, to), "[]", "{matching} to {to}");
    }
    // And so it is: the answer to an unconnected client.
    let (resolver, pod) = (bound(&world.net.client, at(PAIRS[0].1, 53)), &world.net.pod);
    let question = |_| {
        let asking = bound(pod, at(POD_V4, 0));
        asking.send_to(b"who?", at(PAIRS[0].1, 53)).expect("send");
        let (text, from) = receive(&resolver);
        assert_eq!(text, "who?");
        resolver.send_to(b"me", from).expect("send");
        asking
    };
    let [passed] = [()].map(question);
    assert_eq!(receive(&passed).0, "me");
    world.steer("rule", "udp:*", "reject");
    let [_asking] = [()].map(question);
    let rule =
        world.eventually("the answer is taken", "/rules/0/counters/rejected", |rejected| *rejected == 1);
    assert_eq!(rule["rules"][0]["name"], "rule");
}
