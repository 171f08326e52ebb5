//! How a connection ends, and how its two ends see it: as they would without redirector.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    sync::mpsc,
    time::Duration,
};

use redirector_tests::{
    HANG,
    client::Conversation,
    server::{Place, Server, everywhere},
    topology::{POD_V4, POD_V6, at},
    world::World,
};
use socket2::Socket;

/// What one end saw: how many bytes, and how they ended.
type Seen = (usize, Result<(), ErrorKind>);

/// What client and server see of a connection, directly and steered, over IPv4 and IPv6: the same.
#[track_caller]
fn assert_the_same(ask: fn(Conversation) -> Seen, serve: fn(&Socket) -> Seen) -> (Seen, Seen) {
    let direct = World::new();
    let (app, seen) = start(Place::In(&direct.net.pod), &everywhere(80), serve);
    let expected = see(&direct, POD_V4, ask, &seen);
    assert_eq!(see(&direct, POD_V6, ask, &seen), expected, "directly, IPv6");
    drop(app);

    let steered = World::new();
    let (proxy, seen) = start(Place::Here, &[at([127, 0, 0, 1].into(), 0)], serve);
    steered.steer("http", "tcp:80", &proxy.destination());
    for pod in [POD_V4, POD_V6] {
        assert_eq!(
            see(&steered, pod, ask, &seen),
            expected,
            "steered to {pod}; expected is as without steering"
        );
    }
    steered.eventually_at_rest();
    expected
}

fn start(
    place: Place<'_>,
    addresses: &[SocketAddr],
    serve: fn(&Socket) -> Seen,
) -> (Server, mpsc::Receiver<Seen>) {
    let (sender, receiver) = mpsc::channel();
    let server = Server::start(place, "server", addresses, move |connection| {
        sender.send(serve(connection)).expect("somebody waits for what the server saw");
    });
    (server, receiver)
}

fn see(
    world: &World,
    pod: std::net::IpAddr,
    ask: fn(Conversation) -> Seen,
    server: &mpsc::Receiver<Seen>,
) -> (Seen, Seen) {
    let (conversation, _) = world.open(at(pod, 80));
    let client = ask(conversation);
    (client, server.recv_timeout(HANG).expect("what the server saw"))
}

/// Reads until there is an end.
fn read(mut from: impl io::Read) -> Seen {
    let mut buffer = [0; 64 * 1024];
    let mut count = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return (count, Ok(())),
            Ok(length) => count += length,
            Err(error) => return (count, Err(error.kind())),
        }
    }
}

/// Writes until there is an end, which must come.
fn write(mut to: impl io::Write) -> Seen {
    loop {
        if let Err(error) = to.write(&[1; 64 * 1024]) {
            // How many went is a matter of time.
            return (0, Err(error.kind()));
        }
    }
}

const REQUEST: usize = 300_000;
const REPLY: usize = 3_000_000;

#[test]
fn a_client_that_shuts_down_first_still_receives_all() {
    let seen = assert_the_same(
        |mut conversation| {
            conversation.stream().write_all(&vec![1; REQUEST]).unwrap();
            conversation.stream().shutdown(Shutdown::Write).unwrap();
            read(conversation.reader())
        },
        |connection| {
            let seen = read(connection);
            (&mut &*connection).write_all(&vec![2; REPLY]).unwrap();
            seen
        },
    );
    assert_eq!(seen, ((REPLY, Ok(())), (REQUEST, Ok(()))));
}

#[test]
fn a_server_that_shuts_down_first_still_receives_all() {
    let seen = assert_the_same(
        |mut conversation| {
            let seen = read(conversation.reader());
            conversation.stream().write_all(&vec![1; REPLY]).unwrap();
            seen
        },
        |connection| {
            (&mut &*connection).write_all(&vec![2; REQUEST]).unwrap();
            connection.shutdown(Shutdown::Write).unwrap();
            read(connection)
        },
    );
    assert_eq!(seen, ((REQUEST, Ok(())), (REPLY, Ok(()))));
}

#[test]
fn a_client_that_sends_nothing_and_leaves_is_seen_to_leave() {
    let seen = assert_the_same(
        |mut conversation| {
            conversation.stream().shutdown(Shutdown::Write).unwrap();
            read(conversation.reader())
        },
        |connection| read(connection),
    );
    assert_eq!(seen, ((0, Ok(())), (0, Ok(()))));
}

#[test]
fn a_client_that_resets_without_a_word_is_seen_to_reset() {
    let seen = assert_the_same(
        |conversation| {
            conversation.reset();
            (0, Ok(()))
        },
        |connection| read(connection),
    );
    assert_eq!(seen.1, (0, Err(ErrorKind::ConnectionReset)));
}

#[test]
fn a_client_that_resets_after_a_request_is_seen_to_reset() {
    let seen = assert_the_same(
        |mut conversation| {
            conversation.stream().write_all(&vec![1; REQUEST]).unwrap();
            // The server has got all of it before the reset, which would overtake it.
            let mut answer = [0];
            conversation.reader().read_exact(&mut answer).unwrap();
            conversation.reset();
            (0, Ok(()))
        },
        |connection| {
            (&mut &*connection).read_exact(&mut vec![0; REQUEST]).unwrap();
            (&mut &*connection).write_all(&[2]).unwrap();
            read(connection)
        },
    );
    assert_eq!(seen.1, (0, Err(ErrorKind::ConnectionReset)));
}

#[test]
fn a_client_that_resets_while_its_server_writes_stops_the_server() {
    let seen = assert_the_same(
        |mut conversation| {
            conversation.reader().read_exact(&mut vec![0; REPLY]).unwrap();
            conversation.reset();
            (0, Ok(()))
        },
        |connection| write(connection),
    );
    assert_eq!(seen.1.1, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_server_that_resets_without_a_word_is_seen_to_reset() {
    let seen = assert_the_same(
        |mut conversation| {
            // A reset that comes while the client still connects would be one of connect(2).
            conversation.stream().write_all(&[1]).unwrap();
            read(conversation.reader())
        },
        |connection| {
            (&mut &*connection).read_exact(&mut [0]).unwrap();
            connection.set_linger(Some(Duration::ZERO)).unwrap();
            (0, Ok(()))
        },
    );
    assert_eq!(seen.0, (0, Err(ErrorKind::ConnectionReset)));
}

#[test]
fn a_server_that_closes_without_reading_is_seen_to_reset() {
    let seen = assert_the_same(
        |mut conversation| {
            conversation.stream().write_all(&[1; 1000]).unwrap();
            read(conversation.reader())
        },
        |connection| {
            // The kernel sends RST on a close with bytes that nobody has read: they must be there.
            connection.peek(&mut [std::mem::MaybeUninit::uninit()]).unwrap();
            (0, Ok(()))
        },
    );
    assert_eq!(seen.0, (0, Err(ErrorKind::ConnectionReset)));
}

#[test]
fn a_server_that_resets_while_its_client_writes_stops_the_client() {
    let seen = assert_the_same(
        |conversation| write(conversation.stream()),
        |connection| {
            (&mut &*connection).read_exact(&mut vec![0; REQUEST]).unwrap();
            connection.set_linger(Some(Duration::ZERO)).unwrap();
            (0, Ok(()))
        },
    );
    assert_eq!(seen.0.1, Err(ErrorKind::ConnectionReset));
}

#[test]
fn a_half_closed_connection_ends_with_the_reset_of_the_other_half() {
    let seen = assert_the_same(
        |mut conversation| {
            conversation.stream().shutdown(Shutdown::Write).unwrap();
            read(conversation.reader())
        },
        |connection| {
            let seen = read(connection);
            connection.set_linger(Some(Duration::ZERO)).unwrap();
            seen
        },
    );
    assert_eq!(seen, ((0, Err(ErrorKind::ConnectionReset)), (0, Ok(()))));
}
