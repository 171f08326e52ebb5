//! Destinations in other namespaces: `TARGET/IP:PORT`.

use std::{
    io::{ErrorKind, Read as _},
    time::Duration,
};

use redirector_tests::{
    HANG,
    cli::error,
    client::{Conversation, answer},
    eventually::eventually,
    netns::Netns,
    server::{Place, Server, echo, listen},
    snapshot::Snapshot,
    topology::{CLIENT_V4, POD_V4, POD_V6, Topology, at},
    world::{World, count},
};
use serde_json::json;

use super::SECOND;

/// How long a namespace may live after its last process and mount are gone.
const FIGURE: Duration = Duration::from_secs(2);

/// Two pods that know nothing of each other; what listens in the second.
struct Two {
    world: World,
    other: Topology,
    server: Server,
}

impl Two {
    /// In the second pod a server on one loopback address and port 8080.
    #[track_caller]
    fn new() -> Self {
        Self::with(Netns::new())
    }

    #[track_caller]
    fn with(other: Netns) -> Self {
        let (world, other) = (World::new(), Topology::around(other));
        let server = Server::inside(&other.pod, "other", 8080);
        Self { world, other, server }
    }

    /// A destination there.
    fn there(&self, endpoint: &str) -> String {
        format!("{}/{endpoint}", self.other.pod.target())
    }

    #[track_caller]
    fn eventually_is(&self, state: &str) {
        eventually(&format!("the rule is {state}"), FIGURE, || {
            let rule = self.world.rule("there");
            if rule["state"] == state { Ok(()) } else { Err(rule) }
        });
    }

    /// What a mark of a rule means is in the kernel a moment later.
    #[track_caller]
    fn eventually_answers(&self, name: &str) {
        eventually(&format!("`{name}` answers"), FIGURE, || {
            let now = self.world.answer(at(POD_V4, 80));
            if now == name { Ok(()) } else { Err(now) }
        });
    }

    #[track_caller]
    fn assert_other_dies(&self) {
        self.other.pod.delete();
        eventually("the kernel has let the namespace go", FIGURE, || {
            if self.other.is_joined() { Err(self.world.list()) } else { Ok(()) }
        });
    }
}

#[test]
fn a_server_on_loopback_or_another_address_of_another_namespace_is_a_destination() {
    let two = Two::new();
    let before = Snapshot::of(&two.other.pod);
    let fds = two.world.daemon.fds_at_rest();
    for endpoint in ["127.0.0.1:8080", "[::1]:8080", &format!("{POD_V4}:8080"), &format!("[{POD_V6}]:8080")] {
        let to = two.there(endpoint);
        two.world.steer("there", "tcp:80", &to);
        assert_eq!(two.world.rule("there")["to"], json!([to]));
        for pod in [POD_V4, POD_V6] {
            for _ in 0..20 {
                assert_eq!(two.world.answer(at(pod, 80)), "other", "{to}");
            }
        }
    }
    // The port that the client asked for.
    two.world.steer("there", "tcp:*", &two.there("127.0.0.1:*"));
    assert_eq!(two.world.answer(at(POD_V4, 8080)), "other");
    assert_eq!(two.world.answer(at(POD_V4, 81)), "reset");
    // One that only the other namespace has a route to.
    let beyond = Server::inside(&two.other.client, "beyond", 8080);
    two.world.steer("there", "tcp:80", &two.there(&format!("{CLIENT_V4}:8080")));
    assert_eq!(two.world.answer(at(POD_V4, 80)), "beyond");
    drop(beyond);
    assert_eq!(two.server.accepted(), 4 * 2 * 20 + 1);
    two.world.detach();
    // It is as it was, but for what the kernel remembers of ended connections.
    two.world.daemon.eventually_has_fds(fds);
    Snapshot::of(&two.other.pod).assert_same_as(&before);
}

#[test]
fn bytes_and_ends_go_both_ways() {
    let two = Two::new();
    two.world.steer("there", "tcp:80", &two.there("127.0.0.1:8080"));
    let mut open: Vec<_> =
        (0..100).map(|number| two.world.open(at([POD_V4, POD_V6][number % 2], 80)).0).collect();
    for conversation in &mut open {
        conversation.echo("in another namespace").unwrap();
    }
    open.into_iter().for_each(|conversation| conversation.finish().unwrap());
    let pod = two.world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/ended/finished"), 100, "{pod:#}");
}

#[test]
fn a_namespace_that_is_not_there_is_an_error_of_attach_and_changes_nothing() {
    let world = World::new();
    let target = world.target();
    for to in ["netns:rdt-none/127.0.0.1:80", "path:/nonexistent/127.0.0.1:80"] {
        let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", to]);
        let said = error(&outcome, 3);
        assert!(said.contains(to), "{outcome}");
    }
    for (to, part) in [
        ("self/127.0.0.1:80", "self"),
        ("netns:x/db:80", "db"),
        ("path:/etc/passwd/127.0.0.1:80", "/etc/passwd"),
    ] {
        let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", to]);
        let code = if part == "/etc/passwd" { 1 } else { 2 };
        assert!(error(&outcome, code).contains(part), "{outcome}");
    }
    assert_eq!(world.list()["namespaces"], json!([]));
}

#[test]
fn idle_or_busy_it_is_not_kept_alive_and_connections_there_are_reset() {
    for busy in [false, true] {
        let two = Two::new();
        two.world.steer("there", "tcp:80", &two.there("127.0.0.1:8080"));
        let mut open: Vec<Conversation> = (0..10).map(|_| two.world.open(at(POD_V4, 80)).0).collect();
        for conversation in &mut open {
            conversation.echo("hello").unwrap();
        }
        if !busy {
            open.drain(..).for_each(|conversation| conversation.finish().unwrap());
            two.world.eventually_at_rest();
        }
        // The harness's own sockets, too, would keep it.
        let Two { server, world, other } = two;
        drop(server);
        let two = Two { server: Server::here("unused"), world, other };
        two.assert_other_dies();
        for mut conversation in open {
            assert!(conversation.echo("anybody?").is_err());
        }
        two.eventually_is("down");
        two.eventually_answers("refused");
        two.world.eventually_at_rest();
    }
}

#[test]
fn a_rule_whose_destination_died_does_what_its_user_chose_until_the_name_is_back() {
    let two = Two::new();
    let _app = Server::inside(&two.world.net.pod, "app", 80);
    let name = two.other.pod.name();
    two.world.attach(&format!(
        "--name there --match tcp:80 --to {} --on-unavailable pass",
        two.there("127.0.0.1:8080")
    ));
    assert_eq!(two.world.answer(at(POD_V4, 80)), "other");
    let Two { server, world, other } = two;
    drop(server);
    let two = Two { server: Server::here("unused"), world, other };
    two.assert_other_dies();
    two.eventually_is("down");
    two.eventually_answers("app");
    // Under its name comes another one, which may even have the same inode.
    let again = Topology::around(Netns::named(&name));
    let _server = Server::inside(&again.pod, "again", 8080);
    two.eventually_is("up");
    two.eventually_answers("again");
}

/// What is left of the connection would be the daemon's, in somebody else's namespace, for as long as the server does not close it.
#[test]
fn asking_whether_a_destination_is_there_again_leaves_nothing_in_its_namespace() {
    let (world, other) = (World::new(), Topology::new());
    let there = at(POD_V4, 8080);
    world.steer("there", "tcp:80", &format!("{}/{there}", other.pod.target()));
    for _ in 0..3 {
        // The first resets come before the rule is known to be down.
        assert!(["reset", "refused"].contains(&&*world.answer(at(POD_V4, 80))));
    }
    world.eventually("the rule is down", "/rules/0/state", |state| state == "down");
    let listener = other.pod.enter(|| listen(there));
    let (mut asked, _) = listener.accept().expect("accept");
    world.eventually("the rule is up", "/rules/0/state", |state| state == "up");
    asked.set_read_timeout(Some(HANG)).expect("SO_RCVTIMEO");
    let read = asked.read(&mut [0; 1]);
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_name_that_comes_to_mean_another_namespace_leads_there_and_what_was_open_goes_on() {
    let holder = Netns::of_process();
    let name = holder.with_a_name();
    let (world, other) = (World::new(), Topology::around(name));
    let _first = Server::inside(&other.pod, "first", 8080);
    world.steer("there", "tcp:80", &format!("{}/127.0.0.1:8080", other.pod.target()));
    let (mut open, server) = world.open(at(POD_V4, 80));
    assert_eq!(server, "first");
    let text = other.pod.name();
    // The name goes, a process stays.
    other.pod.delete();
    let again = Topology::around(Netns::named(&text));
    let _second = Server::inside(&again.pod, "second", 8080);
    eventually("new connections go to the other", SECOND * 2, || {
        match world.answer(at(POD_V4, 80)).as_str() {
            "second" => Ok(()),
            // A socket that was in stock.
            first => Err(first.to_owned()),
        }
    });
    open.echo("still there").unwrap();
    open.finish().unwrap();
}

#[test]
fn the_number_of_a_process_that_has_ended_leads_nowhere() {
    let two = Two::with(Netns::of_process());
    two.world.steer("there", "tcp:80", &two.there("127.0.0.1:8080"));
    assert_eq!(two.world.answer(at(POD_V4, 80)), "other");
    let Two { server, world, other } = two;
    drop(server);
    let two = Two { server: Server::here("unused"), world, other };
    two.assert_other_dies();
    two.eventually_is("down");
    two.eventually_answers("refused");
}

#[test]
fn a_destination_in_a_namespace_that_is_steered_too_is_the_application_there() {
    let two = Two::new();
    let proxy = Server::here("proxy");
    let target = two.other.pod.target();
    // Everything there goes to the proxy, but not what is meant for the application.
    let attach = ["attach", &target, "--match", "tcp:*", "--to", &proxy.destination()];
    two.world.cli().json(&attach);
    assert_eq!(answer(&two.other.client, at(POD_V4, 8080)), "proxy");
    for endpoint in ["127.0.0.1:8080", "[::1]:8080", &format!("{POD_V4}:8080"), &format!("[{POD_V6}]:8080")] {
        two.world.steer("there", "tcp:80", &two.there(endpoint));
        for _ in 0..20 {
            assert_eq!(two.world.answer(at(POD_V4, 80)), "other", "{endpoint}");
        }
    }
    // And again when it is not steered any more.
    two.world.cli().json(&["detach", &target]);
    assert_eq!(two.world.answer(at(POD_V4, 80)), "other");
}

#[test]
fn the_steered_namespace_itself_can_be_named() {
    let world = World::new();
    let _app = Server::start(Place::In(&world.net.pod), "app", &[at([127, 0, 0, 1].into(), 8080)], echo);
    world.steer("self", "tcp:*", &format!("{}/127.0.0.1:8080", world.target()));
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "app");
    }
    assert_eq!(answer(&world.net.pod, at([127, 0, 0, 1].into(), 8080)), "app");
}

#[test]
fn a_way_that_leads_back_is_found_and_reset() {
    // From the pod to its client's namespace, and from there to the pod again.
    let world = World::new();
    let back = format!("{}/{}", world.net.client.target(), at(POD_V4, 9000));
    world.steer("back", "tcp:*", &back);
    assert_eq!(answer(&world.net.client, at(POD_V4, 80)), "reset");
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/failed/loop"), 1, "{pod:#}");
    assert!(count(&pod, "/connections/accepted") <= 4, "{pod:#}");
}

#[test]
fn many_pods_share_one_destination_and_leave_nothing() {
    let two = Two::new();
    let pods: Vec<_> = (0..5).map(|_| Topology::new()).collect();
    let fds = two.world.daemon.fds_at_rest();
    for pod in &pods {
        let to = two.there("127.0.0.1:8080");
        two.world.cli().json(&["attach", &pod.pod.target(), "--match", "tcp:80", "--to", &to]);
    }
    for pod in &pods {
        for _ in 0..10 {
            assert_eq!(answer(&pod.client, at(POD_V4, 80)), "other");
        }
    }
    assert_eq!(two.server.accepted(), 50);
    drop(pods);
    two.world.daemon.eventually_has_fds(fds);
}
