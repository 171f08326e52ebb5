//! What a side said last reaches the other, however it ended.

use std::io::{Read as _, Write as _};

use redirector::sys::socket::unacknowledged;
use redirector_tests::{
    client::Conversation,
    eventually::eventually,
    server::{Place, Server},
    topology::{POD_V4, at},
    world::World,
};

/// As a server that answers "too large" before it has read the request.
const ANSWER: [u8; 300] = [7; 300];

fn early(mut connection: &socket2::Socket) {
    // Else Nagle's algorithm keeps the answer back for as long as the greeting is not acknowledged, and closing
    // throws it away; also without redirector. A Unix socket has no such option.
    drop(connection.set_tcp_nodelay(true));
    connection.read_exact(&mut [0; 10]).expect("the beginning of a request");
    connection.write_all(&ANSWER).expect("an early answer");
    // A reset throws away what has not been sent: without redirector too, one answer in a thousand is lost by it.
    eventually("the answer has arrived", super::SECOND, || match unacknowledged(connection) {
        Ok(1..) => Err("it is under way"),
        // What a Unix socket was given is with its peer already.
        Ok(0) | Err(_) => Ok(()),
    });
    // Closed with unread input: the kernel resets it.
}

/// How many of the clients got the whole answer while they were still asking.
#[track_caller]
fn answered(world: &World, clients: usize) -> usize {
    (0..clients)
        .filter(|_| {
            let conversation = Conversation::open(&world.net.client, at(POD_V4, 80)).unwrap();
            // The greeting line is the harness's own.
            let mut stream = conversation.stream();
            for _ in 0..64 {
                if stream.write_all(&[1; 4096]).is_err() {
                    break;
                }
            }
            let mut got = Vec::new();
            let mut part = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut part) {
                got.extend_from_slice(&part[..length]);
            }
            got.ends_with(&ANSWER)
        })
        .count()
}

#[test]
fn an_answer_of_a_server_that_does_not_read_the_request_to_its_end_arrives() {
    let world = World::new();
    let server = Server::start(Place::Here, "early", &[at([127, 0, 0, 1].into(), 0)], early);
    world.steer("http", "tcp:80", &server.destination());
    assert_eq!(answered(&world, 100), 100);
    world.eventually_at_rest();
}

#[test]
fn so_it_does_from_a_unix_socket() {
    let world = World::new();
    let path = world.daemon.dir().join("early.sock");
    let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
    listener.listen(128).unwrap();
    let _server = Server::of(vec![listener], "early", early);
    world.steer("http", "tcp:80", &format!("unix:{}", path.display()));
    assert_eq!(answered(&world, 100), 100);
    world.eventually_at_rest();
}
