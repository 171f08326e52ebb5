//! Through a steered port: many connections, at once and in a row, and much data. What it costs afterwards.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    sync::Arc,
    thread,
    time::Duration,
};

use redirector_tests::{
    client::{Conversation, answer_here, at_once, visit_here},
    eventually::eventually,
    pattern::Pattern,
    scale,
    server::{Place, Server, everywhere},
    topology::{CLIENT_V4, POD_V4, POD_V6, at},
    world::{World, count},
};

/// A pod whose port 80 is steered to a server beside the daemon.
fn steered() -> (World, Server) {
    let proxy = Server::here("proxy");
    let world = World::new();
    world.steer("http", "tcp:80", &proxy.destination());
    (world, proxy)
}

/// A load must leave the daemon with the fds and the memory that it has after the same load before. The load is
/// run by `run`, which must go well.
fn assert_costs_nothing(world: &World, run: impl Fn()) {
    run();
    world.eventually_at_rest();
    let (fds, memory) = (world.daemon.fds_at_rest(), world.daemon.anonymous_kib());
    run();
    world.eventually_at_rest();
    world.daemon.eventually_has_fds(fds);
    let memory_after = world.daemon.anonymous_kib();
    let grown = memory_after - memory;
    println!("anonymous memory: {memory} KiB, then {memory_after} KiB");
    assert!(grown <= 2048, "anonymous memory grew by {grown} KiB, from {memory} KiB");
}

fn in_a_row(world: &World, to: SocketAddr, times: usize) {
    world.net.client.enter(|| {
        for number in 0..times {
            let greeting = visit_here(to).unwrap_or_else(|error| panic!("connection {number}: {error}"));
            assert_eq!(greeting.server, "proxy", "connection {number}");
        }
    });
}

#[test]
fn many_connections_in_a_row_all_arrive_and_cost_nothing_afterwards() {
    let (world, proxy) = steered();
    let times = scale::many();
    assert_costs_nothing(&world, || in_a_row(&world, at(POD_V4, 80), times));
    in_a_row(&world, at(POD_V6, 80), times / 10);
    let all = 2 * times + times / 10;
    assert_eq!(proxy.accepted(), all);
    let pod = world.eventually_at_rest();
    for counter in ["accepted", "relayed", "ended/finished"] {
        assert_eq!(count(&pod, &format!("/connections/{counter}")), all as u64, "{counter}: {pod:#}");
    }
    assert_eq!(count(&pod, "/rules/0/counters/steered"), all as u64, "{pod:#}");
    assert_eq!(pod["connections"]["failed"], serde_json::json!({}), "{pod:#}");
}

#[test]
fn sixty_four_connections_at_once_all_arrive_and_cost_nothing_afterwards() {
    const AT_ONCE: usize = 64;
    let (world, _proxy) = steered();
    for to in [at(POD_V4, 80), at(POD_V6, 80)] {
        assert_costs_nothing(&world, || {
            let open = at_once(&world.net.client, AT_ONCE, |_| {
                let mut conversation = Conversation::open_here(to).unwrap();
                assert_eq!(conversation.greeting().unwrap().server, "proxy");
                conversation
            });
            assert_eq!(count(&world.pod(), "/connections/active"), AT_ONCE as u64);
            thread::scope(|scope| {
                for mut conversation in open {
                    scope.spawn(move || {
                        for number in 0..scale::often() {
                            let text = "x".repeat(number * 10_000 / scale::often());
                            conversation.echo(&format!("{number} {text}")).unwrap();
                        }
                        conversation.finish().unwrap();
                    });
                }
            });
        });
    }
}

#[test]
fn connections_that_fail_cost_nothing_afterwards() {
    let (world, _proxy) = steered();
    // Nobody listens there, and the rule does not go down for it.
    world.steer("nobody", "tcp:81", "original");
    assert_costs_nothing(&world, || {
        world.net.client.enter(|| {
            for _ in 0..scale::many() / 20 {
                assert_eq!(answer_here(at(POD_V4, 81)), "reset");
                assert_eq!(answer_here(at(POD_V6, 81)), "reset");
                // Before, while and after it is dialled.
                Conversation::open_here(at(POD_V4, 80)).unwrap().reset();
                let mut conversation = Conversation::open_here(at(POD_V6, 80)).unwrap();
                conversation.greeting().unwrap();
                conversation.reset();
            }
        });
        // Sockets that were made in stock for `original` are closed a second later.
        eventually("the stock is empty", Duration::from_secs(2), || {
            let sockets = world.daemon.fds().iter().filter(|fd| fd.starts_with("socket:")).count();
            if sockets < 12 { Ok(()) } else { Err(sockets) }
        });
    });
    let pod = world.pod();
    let accepted = count(&pod, "/connections/accepted");
    assert_eq!(accepted, (4 * 2 * (scale::many() / 20)) as u64, "{pod:#}");
}

#[test]
fn much_data_each_way_at_the_same_time_arrives_unchanged() {
    let length = scale::bulk();
    let patterns = Arc::new((Pattern::new(1), Pattern::new(2)));
    let world = World::new();
    let proxy = Server::start(Place::Here, "proxy", &[at([127, 0, 0, 1].into(), 0)], {
        let patterns = Arc::clone(&patterns);
        move |connection| {
            thread::scope(|scope| {
                scope.spawn(|| patterns.1.send(connection, length, drop).expect("the server sends"));
                patterns.0.receive(connection, length).expect("what the server receives");
            });
        }
    });
    world.steer("bulk", "tcp:80", &proxy.destination());
    let mut greeting = 0;
    for to in [at(POD_V4, 80), at(POD_V6, 80)] {
        let (mut conversation, server) = world.open(to);
        assert_eq!(server, "proxy");
        greeting += format!("proxy {} {}\n", proxy.peers().last().unwrap(), proxy.destination()).len() as u64;
        let stream = conversation.stream().try_clone().expect("dup");
        thread::scope(|scope| {
            scope.spawn(|| patterns.0.send(&stream, length, drop).expect("the client sends"));
            // What came together with the greeting has been read ahead.
            patterns.1.receive(conversation.reader(), length).expect("what the client receives");
        });
        conversation.finish().expect("the server has no more to say");
    }
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/bytes_in"), 2 * length, "{pod:#}");
    assert_eq!(count(&pod, "/connections/bytes_out"), 2 * length + greeting, "{pod:#}");
}

/// As telnet and ftp send them. They arrive, as bytes like the others.
#[test]
fn urgent_bytes_arrive_in_their_place_whoever_sends_them() {
    fn say(stream: &socket2::SockRef<'_>) {
        for urgent in [b"b", b"e"] {
            stream.send(b"a").unwrap();
            stream.send_out_of_band(urgent).unwrap();
        }
        stream.send(b"z").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let serve = |mut connection: &socket2::Socket| {
        let mut heard = Vec::new();
        connection.read_to_end(&mut heard).unwrap();
        connection.write_all(&heard).unwrap();
        say(&connection.into());
    };
    let world = World::new();
    let beside = Server::start(Place::Here, "beside", &[at([127, 0, 0, 1].into(), 0)], serve);
    let inside = Server::start(Place::In(&world.net.pod), "inside", &everywhere(81), serve);
    world.steer("beside", "tcp:80", &beside.destination());
    world.steer("inside", "tcp:81", "original");
    for (port, name) in [(80, "beside"), (81, "inside")] {
        for pod in [POD_V4, POD_V6] {
            let (mut conversation, server) = world.open(at(pod, port));
            assert_eq!(server, name);
            say(&conversation.stream().into());
            let heard = String::from_utf8(conversation.rest().unwrap()).unwrap();
            assert_eq!(heard, "abaezabaez", "{name}");
        }
    }
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/bytes_in"), 4 * 5, "{pod:#}");
    drop((beside, inside));
}

#[test]
fn the_destination_is_reached_from_the_daemons_namespace_and_the_client_stays_with_its_own_addresses() {
    let (world, proxy) = steered();
    let (conversation, _) = world.open(at(POD_V4, 80));
    let stream = conversation.stream();
    assert_eq!(stream.peer_addr().unwrap(), at(POD_V4, 80));
    assert_eq!(stream.local_addr().unwrap().ip(), CLIENT_V4);
    assert!(proxy.peers()[0].ip().is_loopback(), "{:?}", proxy.peers());
    conversation.finish().unwrap();
}
