//! Destinations of every kind, and what a client sees when there is nothing.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use redirector_tests::{
    cli::error,
    client::Conversation,
    daemon::{Daemon, binary},
    dir::Dir,
    eventually::eventually,
    netns::Netns,
    server::{Place, Server, echo},
    topology::{CLIENT_V4, POD_V4, POD_V6, Topology, at},
    world::{World, count},
};
use socket2::{Domain, Socket, Type};

const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A port of 127.0.0.1 that answers with RST, for as long as the socket lives: bound, and not listening.
fn refusing() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&HERE.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// A port of 127.0.0.1 that does not answer: its accept queue is full. With the sockets that fill it.
pub(crate) fn silent() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&HERE.into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let filling = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    filling.connect(&address.into()).unwrap();
    (address, vec![listener, filling])
}

#[test]
fn a_unix_socket_is_a_destination() {
    let dir = Dir::new();
    let path = dir.join("app.sock");
    let server = Server::unix(&path, "unix");
    let world = World::new();
    world.steer("unix", "tcp:80", &format!("unix:{}", path.display()));
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "unix");
    }
    assert_eq!(server.accepted(), 2);
}

#[test]
fn an_ipv6_address_and_a_name_are_destinations() {
    let six = Server::start(Place::Here, "six", &[SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 0))], echo);
    let proxy = Server::here("proxy");
    let world = World::new();
    world.steer("six", "tcp:80", &six.destination());
    world.steer("name", "tcp:81", &format!("localhost:{}", proxy.addresses()[0].port()));
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "six");
        assert_eq!(world.answer(at(pod, 81)), "proxy");
    }
}

#[test]
fn the_port_star_is_the_port_that_the_client_asked_for() {
    let (one, two) = (Server::here("one"), Server::here("two"));
    let world = World::new();
    world.steer("all", "tcp:*", "127.0.0.1:*");
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, one.addresses()[0].port())), "one");
        assert_eq!(world.answer(at(pod, two.addresses()[0].port())), "two");
    }
}

/// One whose log is read.
fn world_with_log() -> World {
    World::with(Daemon::with_log_read(&[]), Topology::new())
}

/// A client of a destination that is not there: its connection is reset, counted by reason, and logged once.
#[track_caller]
fn assert_dead(world: &World, to: &str, reason: &str, words: &[&str]) {
    world.steer("dead", "tcp:80", to);
    for (number, pod) in [POD_V4, POD_V6].into_iter().enumerate() {
        assert_eq!(world.answer(at(pod, 80)), "reset", "{to}");
        let before = format!("/connections/failed/{reason}");
        let pod = world.eventually("it is counted", &before, |failed| *failed == number as u64 + 1);
        assert_eq!(count(&pod, "/connections/relayed"), 0, "{pod:#}");
    }
    let client = format!("{CLIENT_V4}:");
    let original = at(POD_V4, 80).to_string();
    let words = [&[to, &client, &original], words].concat();
    let lines = world.daemon.eventually_says(&["not delivered", to]);
    assert_eq!(lines.len(), 1, "one line for many like events: {lines:#?}");
    assert_eq!(world.daemon.log_with(&words).len(), 1, "must name {words:?}: {lines:#?}");
}

#[test]
fn a_destination_that_refuses_resets_the_client_and_is_said_once() {
    let (_socket, address) = refusing();
    assert_dead(&world_with_log(), &address.to_string(), "connect_refused", &["refused"]);
}

#[test]
fn a_unix_socket_that_is_not_there_resets_the_client_and_is_said_once() {
    let dir = Dir::new();
    let to = format!("unix:{}", dir.join("nobody.sock").display());
    assert_dead(&world_with_log(), &to, "connect_error", &["No such file"]);
}

#[test]
fn a_destination_without_a_route_resets_the_client_and_is_said_once() {
    // The daemon in a namespace of its own, which has no route to anywhere.
    let net = Topology::new();
    let elsewhere = Netns::new();
    elsewhere.ip("link set lo up");
    let world = World::with(elsewhere.enter(Daemon::start), net);
    assert_dead(&world, "192.0.2.1:80", "unreachable", &["unreachable"]);
}

#[test]
fn a_destination_that_does_not_answer_resets_the_client_after_the_connect_time_out() {
    let (address, _sockets) = silent();
    let world = World::new();
    world.attach(&format!("--name slow --match tcp:80 --to {address} --connect-timeout 200ms"));
    assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    world.eventually("it is counted", "/connections/failed/connect_timeout", |failed| *failed == 1);
}

#[test]
fn a_silent_connection_is_reset_after_the_idle_time_out_and_others_are_not() {
    let proxy = Server::here("proxy");
    let world = World::new();
    world.attach(&format!("--name short --match tcp:80 --to {} --idle-timeout 300ms", proxy.destination()));
    world.attach(&format!("--name never --match tcp:81 --to {} --idle-timeout 0s", proxy.destination()));
    let (mut short, _) = world.open(at(POD_V4, 80));
    let (mut never, _) = world.open(at(POD_V4, 81));
    assert_eq!(short.rest().unwrap_err().kind(), ErrorKind::ConnectionReset);
    world.eventually("it is counted", "/connections/ended/idle_timeout", |ended| *ended == 1);
    never.echo("still there").unwrap();
    never.finish().unwrap();
}

#[test]
fn a_destination_that_refuses_three_times_is_down_until_it_answers_again() {
    let (socket, address) = refusing();
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    let _app = Server::inside(&world.net.pod, "app", 81);
    world.steer("rejecting", "tcp:80", &address.to_string());
    world.attach(&format!("--name passing --match tcp:81 --to {address} --on-unavailable pass"));
    for (rule, port, otherwise) in [("rejecting", 80, "refused"), ("passing", 81, "app")] {
        for _ in 0..3 {
            // The first resets come before the rule is known to be down.
            assert!(["reset", otherwise].contains(&&*world.answer(at(POD_V4, port))));
        }
        eventually("the rule is down", Duration::from_secs(1), || {
            let rule = world.rule(rule);
            if rule["state"] == "down" { Ok(()) } else { Err(rule) }
        });
        let before = count(&world.rule(rule), "/counters/unavailable_reasons/down");
        assert_eq!(world.answer(at(POD_V4, port)), otherwise);
        assert!(
            count(&world.rule(rule), "/counters/unavailable_reasons/down") > before,
            "{:#}",
            world.rule(rule)
        );
    }
    // The same socket: nobody can take its port meanwhile.
    socket.listen(128).unwrap();
    let _proxy = Server::of(vec![socket], "proxy", echo);
    for (rule, port) in [("rejecting", 80), ("passing", 81)] {
        eventually("the rule is up again", Duration::from_secs(2), || {
            let rule = world.rule(rule);
            if rule["state"] == "up" { Ok(()) } else { Err(rule) }
        });
        assert_eq!(world.answer(at(POD_V4, port)), "proxy");
    }
}

#[test]
fn a_name_is_needed_for_attach_and_later_its_last_addresses_are_kept() {
    // In a mount namespace where we decide what a name is, and where nobody outside is asked.
    let dir = Dir::new();
    let proxy = Server::here("proxy");
    let to = format!("steered.test:{}", proxy.addresses()[0].port());
    let hosts = dir.join("hosts");
    fs::write(&hosts, "").unwrap();
    fs::write(dir.join("nsswitch.conf"), "hosts: files\n").unwrap();
    let script = "mount --bind \"$0/hosts\" /etc/hosts && \
                  mount --bind \"$0/nsswitch.conf\" /etc/nsswitch.conf && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "slave", "--", "sh", "-c", script]);
    command.arg(dir.path()).arg(binary()).arg("run");
    let world = World::with(Daemon::spawn_with_log_read(&mut command, &[]), Topology::new());
    let outcome = world.cli().run(&["attach", &world.target(), "--match", "tcp:80", "--to", &to]);
    assert!(error(&outcome, 1).contains("steered.test"), "{outcome}");
    assert_eq!(world.list()["namespaces"], serde_json::json!([]));
    fs::write(&hosts, "127.0.0.1 steered.test\n").unwrap();
    world.steer("named", "tcp:80", &to);
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    // An outage of the name service does not take a destination down that works.
    fs::write(&hosts, "").unwrap();
    eventually("the name is known to be gone, and that is said", Duration::from_secs(30), || {
        match world.daemon.log_with(&["steered.test", "not resolved"]).len() {
            1.. => Ok(()),
            none => Err(none),
        }
    });
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
}

#[test]
fn connections_beyond_the_limit_are_reset_and_counted_and_the_others_go_on() {
    let proxy = Server::here("proxy");
    let world = World::with(Daemon::with(&["--max-connections", "3"]), Topology::new());
    world.steer("http", "tcp:80", &proxy.destination());
    let mut open: Vec<_> = (0..3).map(|_| world.open(at(POD_V4, 80)).0).collect();
    assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    world.eventually("it is counted", "/connections/failed/connection_limit", |failed| *failed == 1);
    for conversation in &mut open {
        conversation.echo("still there").unwrap();
    }
    open.pop().unwrap().finish().unwrap();
    world.eventually("one has ended", "/connections", |now| now["active"] == 2 && now["lingering"] == 0);
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    open.into_iter().for_each(|conversation| conversation.finish().unwrap());
}

#[test]
fn a_client_that_is_gone_before_its_destination_answers_leaves_nothing() {
    let (address, _sockets) = silent();
    let world = World::new();
    world.attach(&format!("--name slow --match tcp:80 --to {address} --connect-timeout 1h"));
    let conversation = Conversation::open(&world.net.client, at(POD_V4, 80)).unwrap();
    world.eventually("it is dialled", "/connections/active", |active| *active == 1);
    conversation.reset();
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/failed/client_gone"), 1, "{pod:#}");
}
