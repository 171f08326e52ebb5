//! Peers that read slowly or late, after both sides have said all: they get all, or what they do not get is counted as lost.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Mutex, mpsc},
    time::Duration,
};

use redirector_tests::{
    HANG,
    eventually::{at_intervals, eventually},
    pattern::Pattern,
    server::{Place, Server, listen},
    topology::{POD_V4, POD_V6, at},
    world::{World, count},
};
use rustix::io::ioctl_fionread;
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};

use crate::SECOND;

/// Little enough for a send buffer, so that the relay is done with it at once; much more than [`asked`] has room for.
const ANSWER: usize = 40_000;

const SEED: u64 = 15;

/// A pod whose port 80 gives as many bytes as are asked for, and closes.
fn generous() -> (World, Server) {
    let world = World::new();
    let pattern = Pattern::new(SEED);
    let server =
        Server::start(Place::Here, "generous", &[at([127, 0, 0, 1].into(), 0)], move |mut connection| {
            let mut question = String::new();
            connection.read_to_string(&mut question).expect("a question, and the client's FIN");
            // A client that is reset has no more to hear.
            drop(pattern.send(connection, question.parse().expect("a number"), drop));
        });
    world.steer("http", "tcp:80", &server.destination());
    (world, server)
}

/// A client in the namespace of this thread that has room for little, has asked for so many bytes and said that this was all.
fn asked(to: SocketAddr, length: usize) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.connect_timeout(&to.into(), HANG).expect("connect");
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HANG)).expect("SO_RCVTIMEO");
    stream.write_all(length.to_string().as_bytes()).expect("ask");
    stream.shutdown(Shutdown::Write).expect("FIN");
    stream
}

/// All that comes after `got`, and how it ends.
fn rest(mut stream: &TcpStream, got: &mut Vec<u8>) -> Result<(), ErrorKind> {
    stream.read_to_end(got).map(drop).map_err(|error| error.kind())
}

/// The part of what a client got that is the answer: its beginning at least.
#[track_caller]
fn answer(got: &[u8], pattern: &[u8]) -> usize {
    let Some(greeting) = got.iter().position(|byte| *byte == b'\n') else { return 0 };
    let answer = &got[greeting + 1..];
    assert!(pattern.starts_with(answer), "other bytes than were sent");
    answer.len()
}

/// The first bytes of each answer.
fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    Pattern::new(SEED).send(&mut bytes, length as u64, drop).expect("memory");
    bytes
}

/// What a side has taken that reads nothing, when it has told its peer so.
fn taken(side: impl std::os::fd::AsFd) -> u64 {
    let mut taken = 0;
    // A delayed acknowledgement takes 40 ms.
    at_intervals(15, || taken = ioctl_fionread(&side).expect("FIONREAD"));
    taken
}

fn by_how(pod: &Value, how: &str) -> u64 {
    count(pod, &format!("/connections/ended/{how}"))
}

/// What was lost on the way to clients.
fn lost(pod: &Value) -> u64 {
    count(pod, "/connections/bytes_lost_to_clients")
}

/// Waits until so many connections have ended but for their clients.
#[track_caller]
fn eventually_linger(world: &World, clients: usize) -> Value {
    world.eventually("what is left is the clients' to read", "/connections", |now| {
        now["active"] == 0 && now["lingering"] == clients
    })
}

#[test]
fn each_of_many_half_closed_clients_that_read_late_gets_all() {
    // More than there once were places for.
    const CLIENTS: usize = 1100;
    let (world, _server) = generous();
    let clients: Vec<_> = world
        .net
        .client
        .enter(|| (0..CLIENTS).map(|number| asked(at([POD_V4, POD_V6][number % 2], 80), ANSWER)).collect());
    eventually_linger(&world, CLIENTS);
    let expected = pattern(ANSWER);
    for client in &clients {
        let mut got = Vec::new();
        assert_eq!(rest(client, &mut got), Ok(()));
        assert_eq!(answer(&got, &expected), ANSWER);
    }
    let pod = world.eventually_at_rest();
    assert_eq!((by_how(&pod, "finished"), lost(&pod)), (CLIENTS as u64, 0), "{pod:#}");
}

/// 64 MiB wait for the clients of one namespace at most.
#[test]
fn of_too_many_bytes_that_wait_those_go_that_stand_still_longest_and_they_are_counted() {
    const CLIENTS: usize = 2100;
    let (world, _server) = generous();
    let clients: Vec<_> =
        world.net.client.enter(|| (0..CLIENTS).map(|_| asked(at(POD_V4, 80), ANSWER)).collect());
    let pod = world.eventually("all have been answered", "/connections", |now| {
        let ended = now["ended"]["linger_limit"].as_u64().unwrap_or(0);
        now["active"] == 0 && now["lingering"].as_u64() == Some(CLIENTS as u64 - ended)
    });
    assert!(by_how(&pod, "linger_limit") > 0, "{pod:#}");
    let expected = pattern(ANSWER);
    let (mut resets, mut bytes) = (Vec::new(), 0);
    for client in &clients {
        let mut got = Vec::new();
        let end = rest(client, &mut got);
        bytes += got.len() as u64;
        let all = answer(&got, &expected) == ANSWER;
        assert_eq!(end, if all { Ok(()) } else { Err(ErrorKind::ConnectionReset) });
        resets.push(!all);
    }
    let pod = world.eventually_at_rest();
    // Only now: those that are left are looked at again and again until their clients have read.
    let crowded_out = by_how(&pod, "linger_limit");
    assert!(crowded_out < CLIENTS as u64 / 2, "{pod:#}");
    assert_eq!(resets.iter().filter(|reset| **reset).count() as u64, crowded_out);
    assert_eq!((resets.first(), resets.last()), (Some(&true), Some(&false)), "the oldest go");
    assert_eq!(by_how(&pod, "finished"), CLIENTS as u64 - crowded_out, "{pod:#}");
    assert_eq!(bytes + lost(&pod), count(&pod, "/connections/bytes_out"), "{pod:#}");
    assert_ne!(world.daemon.eventually_says(&["linger_limit", "bytes_lost_to_client"]), [""; 0]);
}

/// Clients that read 20 bytes in each of so many fiftieths of a second, and then the rest.
#[track_caller]
fn assert_slow_clients_get_all_or_it_is_counted(clients: usize, fiftieths: u32) {
    const LENGTHS: [usize; 4] = [10_000, 40_000, 40_000, 200_000];
    const LONGEST: usize = 10_000_000;
    let (world, _server) = generous();
    let mut streams: Vec<_> = world.net.client.enter(|| {
        (0..clients)
            .map(|number| {
                let length = if number % 50 == 49 { LONGEST } else { LENGTHS[number % LENGTHS.len()] };
                (length, asked(at([POD_V4, POD_V6][number / 7 % 2], 80), length), Vec::new(), Ok(()))
            })
            .collect()
    });
    streams.iter().for_each(|(_, stream, ..)| stream.set_nonblocking(true).expect("fcntl"));
    at_intervals(fiftieths, || {
        for (_, stream, got, end) in &mut streams {
            let mut part = [0; 20];
            match stream.read(&mut part) {
                Ok(length) => got.extend_from_slice(&part[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // It is told once.
                Err(error) => *end = Err(error.kind()),
            }
        }
    });
    streams.iter().for_each(|(_, stream, ..)| stream.set_nonblocking(false).expect("fcntl"));
    let expected = pattern(LONGEST);
    let (mut bytes, mut failed) = (0, 0);
    for (length, stream, mut got, end) in streams {
        let end = end.and(rest(&stream, &mut got));
        let whole = answer(&got, &expected) == length;
        assert!(end.is_err() || whole, "an end without a reset before the end");
        failed += u64::from(!whole);
        bytes += got.len() as u64;
    }
    let pod = world.eventually_at_rest();
    println!("{failed} of {clients} did not get all: {pod:#}");
    assert_eq!(by_how(&pod, "finished"), clients as u64 - failed, "{pod:#}");
    assert_eq!(by_how(&pod, "linger_limit"), failed, "{pod:#}");
    assert_eq!(bytes + lost(&pod), count(&pod, "/connections/bytes_out"), "{pod:#}");
}

#[test]
fn slow_half_closed_clients_get_all_or_it_is_counted() {
    assert_slow_clients_get_all_or_it_is_counted(300, 20);
}

/// 45 s of 1,000 bytes each: more than half a minute.
#[test]
#[ignore = "soak: half-closed"]
fn three_thousand_slow_half_closed_clients_get_all_or_it_is_counted() {
    for clients in [1, 30, 3000] {
        assert_slow_clients_get_all_or_it_is_counted(clients, 2250);
    }
}

/// A minute and a half without a byte: its answers to window probes are life. Without them it is gone after some 45 s.
#[test]
#[ignore = "soak: half-closed"]
fn a_client_that_reads_after_a_minute_gets_all_and_one_that_is_gone_is_given_up() {
    let [(late, _late_server), (gone, _gone_server)] = [(); 2].map(|()| generous());
    let clients = [&late, &gone].map(|world| world.net.client.enter(|| asked(at(POD_V4, 80), ANSWER)));
    for world in [&late, &gone] {
        eventually_linger(world, 1);
    }
    gone.net.client.ip("link set dev eth0 down");
    at_intervals(4500, || {});
    let pod = gone.eventually_at_rest();
    assert_eq!(by_how(&pod, "client_unanswering"), 1, "{pod:#}");
    assert!(lost(&pod) > ANSWER as u64 / 2, "{pod:#}");
    let mut got = Vec::new();
    assert_eq!(rest(&clients[0], &mut got), Ok(()));
    assert_eq!(answer(&got, &pattern(ANSWER)), ANSWER);
    let pod = late.eventually_at_rest();
    assert_eq!((by_how(&pod, "finished"), lost(&pod)), (1, 0), "{pod:#}");
}

#[test]
fn what_a_client_that_resets_has_not_taken_of_the_end_of_an_answer_is_counted() {
    let (world, _server) = generous();
    for (number, pod) in [POD_V4, POD_V6].into_iter().enumerate() {
        let client = world.net.client.enter(|| asked(at(pod, 80), ANSWER));
        let before = eventually_linger(&world, 1);
        let taken = taken(&client);
        assert_eq!(by_how(&before, "finished"), 0, "nobody knows yet: {before:#}");
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        drop(client);
        let after = world.eventually_at_rest();
        assert_eq!(by_how(&after, "client_failed"), number as u64 + 1, "{after:#}");
        let out = |pod| count(pod, "/connections/bytes_out");
        let sent = out(&after) / (number as u64 + 1);
        assert_eq!(lost(&after) - lost(&before), sent - taken, "{sent} sent, {taken} taken: {after:#}");
    }
}

#[test]
fn what_a_client_that_resets_amid_an_answer_has_not_taken_is_counted() {
    const ALL: usize = 10_000_000;
    let (world, _server) = generous();
    let client = world.net.client.enter(|| asked(at(POD_V4, 80), ALL));
    let mut last = 0;
    let before = eventually("the answer is held up", SECOND, || {
        let pod = world.pod();
        let out = count(&pod, "/connections/bytes_out");
        let is_held_up = out > 0 && out == std::mem::replace(&mut last, out);
        if is_held_up { Ok(pod) } else { Err(pod) }
    });
    let taken = taken(&client);
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    drop(client);
    let after = world.eventually_at_rest();
    assert_eq!(by_how(&after, "client_failed"), 1, "{after:#}");
    // What nobody has read from the destination is lost as well.
    assert!(lost(&after) >= count(&before, "/connections/bytes_out") - taken, "{taken} taken: {after:#}");
    assert!(lost(&after) <= ALL as u64 - taken + 200, "{taken} taken: {after:#}");
}

#[test]
fn what_a_destination_that_resets_has_not_taken_of_the_end_of_a_request_is_counted() {
    let world = World::new();
    let listener = listen(at([127, 0, 0, 1].into(), 0));
    listener.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    let (go, gone) = mpsc::channel::<()>();
    let (got, arrived) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = Server::of(vec![listener], "deaf", move |connection| {
        connection.shutdown(Shutdown::Write).expect("FIN");
        gone.lock().expect("no panic").recv_timeout(HANG).expect("told to go on");
        got.send(taken(connection)).expect("somebody waits");
        connection.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    });
    world.steer("deaf", "tcp:80", &server.destination());
    let (conversation, _) = world.open(at(POD_V4, 80));
    conversation.stream().write_all(&[7; ANSWER]).expect("send");
    conversation.stream().shutdown(Shutdown::Write).expect("FIN");
    eventually_linger(&world, 1);
    go.send(()).expect("the server waits");
    let arrived = arrived.recv_timeout(HANG).expect("what arrived");
    let pod = world.eventually_at_rest();
    assert_eq!(by_how(&pod, "destination_failed"), 1, "{pod:#}");
    let lost = count(&pod, "/connections/bytes_lost");
    assert_eq!(lost, ANSWER as u64 - arrived, "{arrived} arrived: {pod:#}");
}

#[test]
fn what_waits_for_clients_of_a_namespace_that_dies_is_said_to_be_lost() {
    let (world, _server) = generous();
    let _client = world.net.client.enter(|| asked(at(POD_V4, 80), ANSWER));
    eventually_linger(&world, 1);
    world.net.pod.delete();
    eventually("the log tells", SECOND * 2, || {
        match world.daemon.log_with(&["connection reset", "aborted", "bytes_lost_to_client"]).len() {
            1 => Ok(()),
            other => Err(other),
        }
    });
}

/// A destination that reads late is waited for too, also where the kernel would do it alone.
#[test]
fn a_destination_that_reads_late_gets_all() -> io::Result<()> {
    let world = World::new();
    let listener = listen(at([127, 0, 0, 1].into(), 0));
    listener.set_recv_buffer_size(4096)?;
    let (go, gone) = mpsc::channel::<()>();
    let (got, arrived) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = Server::of(vec![listener], "late", move |mut connection| {
        connection.shutdown(Shutdown::Write).expect("FIN");
        gone.lock().expect("no panic").recv_timeout(HANG).expect("told to go on");
        let mut all = Vec::new();
        connection.read_to_end(&mut all).expect("all, and the client's FIN");
        got.send(all.len()).expect("somebody waits");
    });
    world.steer("late", "tcp:80", &server.destination());
    let (conversation, _) = world.open(at(POD_V4, 80));
    conversation.stream().write_all(&[7; ANSWER])?;
    conversation.stream().shutdown(Shutdown::Write)?;
    drop(conversation);
    eventually_linger(&world, 1);
    go.send(()).expect("the server waits");
    assert_eq!(arrived.recv_timeout(HANG), Ok(ANSWER));
    let pod = world.eventually_at_rest();
    assert_eq!((by_how(&pod, "finished"), count(&pod, "/connections/bytes_lost")), (1, 0), "{pod:#}");
    Ok(())
}
