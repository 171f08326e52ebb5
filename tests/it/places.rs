//! Who gets how many connections when there are few.

use std::{io::Write as _, net::Shutdown};

use redirector_tests::{
    client::{Conversation, answer, answer_at},
    daemon::Daemon,
    eventually::at_intervals,
    server::{Place, Server},
    topology::{CLIENT_V6, POD_V4, POD_V6, Topology, at},
    world::{World, count},
};

/// Clients that take all connections they can get, and keep them.
pub(super) fn all_of(net: &Topology) -> Vec<Conversation> {
    let open = || {
        let mut conversation = Conversation::open(&net.client, at(POD_V4, 80)).ok()?;
        conversation.greeting().ok().map(|_| conversation)
    };
    std::iter::from_fn(open).collect()
}

#[test]
fn clients_of_two_namespaces_cannot_take_all_places_of_a_third() {
    let (proxy, others) = (Server::here("proxy"), [Topology::new(), Topology::new()]);
    let world = World::with(Daemon::with(&["--max-connections", "40"]), Topology::new());
    for pod in [&world.net.pod, &others[0].pod, &others[1].pod] {
        let target = pod.target();
        world.cli().json(&[
            "attach",
            &target,
            "--name",
            "http",
            "--match",
            "tcp:80",
            "--to",
            &proxy.destination(),
        ]);
    }
    let mut taken: Vec<_> = others.iter().flat_map(all_of).collect();
    assert!(taken.len() > 30, "what nobody else is guaranteed can be had: {}", taken.len());
    // A sixth of half of them.
    let mut own = all_of(&world.net);
    assert_eq!(own.len(), 6);
    for conversation in own.iter_mut().chain(&mut taken) {
        conversation.echo("not at the others' cost").unwrap();
    }
    assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    drop(own);
    world.eventually_at_rest();
    assert_eq!(world.answer(at(POD_V6, 80)), "proxy");
}

/// It takes the 10 s after which a connection is idle.
#[test]
fn at_the_limit_the_connection_makes_room_that_was_idle_longest_and_no_active_one() {
    let proxy = Server::here("proxy");
    let world = World::with(Daemon::with(&["--max-connections", "4"]), Topology::new());
    world.steer("http", "tcp:80", &proxy.destination());
    let mut open = all_of(&world.net);
    assert_eq!(open.len(), 3, "three quarters");
    let [first, second, active] = &mut open[..] else { unreachable!("three") };
    // The second was idle for less long.
    second.echo("once more").unwrap();
    at_intervals(510, || active.echo("active").unwrap());
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    let pod = world.eventually("one made room", "/connections/ended/idle_at_limit", |ended| *ended == 1);
    first.echo("reset").unwrap_err();
    second.echo("still there").unwrap();
    active.echo("still there").unwrap();
    assert_eq!(
        count(&pod, "/connections/failed/connection_limit"),
        1,
        "only the one that found the limit: {pod:#}"
    );
    assert_eq!(world.daemon.eventually_says(&["connection reset", "idle_at_limit"]).len(), 1);
}

#[test]
fn a_connection_whose_client_does_not_read_the_end_keeps_its_place_of_its_namespace() {
    let world = World::with(Daemon::with(&["--max-connections", "4"]), Topology::new());
    let server = Server::start(Place::Here, "brief", &[at([127, 0, 0, 1].into(), 0)], |mut connection| {
        drop(connection.write_all(&[7; 40_000]));
    });
    world.steer("http", "tcp:80", &server.destination());
    let clients: Vec<_> = world.net.client.enter(|| {
        let open = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&at(POD_V4, 80).into()).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            socket
        };
        (0..3).map(|_| open()).collect()
    });
    world.eventually("three linger", "/connections", |now| now["active"] == 0 && now["lingering"] == 3);
    assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    let pod = world.pod();
    assert_eq!(count(&pod, "/connections/failed/connection_limit"), 1, "{pod:#}");
    drop(clients);
    world.eventually_at_rest();
    assert_eq!(world.open(at(POD_V4, 80)).1, "brief");
}

#[test]
fn a_client_gets_no_more_connections_than_one_may_have_and_others_go_on() {
    let proxy = Server::here("proxy");
    let world = World::with(Daemon::with(&["--max-connections-per-client", "2"]), Topology::new());
    world.steer("http", "tcp:80", &proxy.destination());
    let mut open = all_of(&world.net);
    assert_eq!(open.len(), 2);
    let pod = world.pod();
    assert_eq!(count(&pod, "/connections/failed/client_limit"), 1, "{pod:#}");
    world.net.client.ip("address add 10.77.0.3/24 dev eth0");
    let other = at([10, 77, 0, 3].into(), 0);
    assert_eq!(answer_at(&world.net.client, other, at(POD_V4, 80)), "proxy", "another address");
    assert_eq!(answer_at(&world.net.client, at(CLIENT_V6, 0), at(POD_V6, 80)), "proxy", "IPv6");
    assert_eq!(answer(&world.net.pod, at(POD_V4, 80)), "proxy", "from inside");
    open.iter_mut().for_each(|one| one.echo("still there").unwrap());
    open.pop().unwrap().finish().unwrap();
    world.eventually("one has ended", "/connections", |now| now["active"] == 1 && now["lingering"] == 0);
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
}
