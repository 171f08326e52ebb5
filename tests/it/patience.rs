//! Clients that do not read, and clients that are not there: back-pressure and bounded memory.

use std::{
    io::{Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use redirector_tests::{
    HANG,
    eventually::eventually,
    pattern::Pattern,
    server::{Place, Server, everywhere},
    topology::{POD_V4, at},
    world::World,
};
use serde_json::json;
use socket2::Socket;

/// Whether a connection goes through redirector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Direct,
    Steered,
}

/// A pod whose port 80 is served by a handler, and the server.
fn serve(way: Way, handler: impl Fn(&Socket) + Send + Sync + 'static) -> (World, Server) {
    let world = World::new();
    let server = match way {
        Way::Direct => Server::start(Place::In(&world.net.pod), "server", &everywhere(80), handler),
        Way::Steered => {
            let server = Server::start(Place::Here, "server", &[at([127, 0, 0, 1].into(), 0)], handler);
            world.steer("http", "tcp:80", &server.destination());
            server
        }
    };
    (world, server)
}

/// Far more than the socket buffers of a path hold: with two of each, and the greatest that the kernel gives by
/// itself (`tcp_wmem` and `tcp_rmem`, 4 and 6 MiB; 32 on new ones), it is about as much.
const REPLY: u64 = 256 << 20;

#[test]
fn a_client_that_does_not_read_holds_up_its_server_and_no_memory_of_the_daemon() {
    for way in [Way::Direct, Way::Steered] {
        let written = Arc::new(AtomicU64::new(0));
        let pattern = Arc::new(Pattern::new(3));
        let (world, _server) = serve(way, {
            let (pattern, written) = (Arc::clone(&pattern), Arc::clone(&written));
            move |connection| {
                let count = |more| {
                    written.fetch_add(more as u64, Ordering::Relaxed);
                };
                pattern.send(connection, REPLY, count).expect("the server sends");
            }
        });
        let memory = world.daemon.anonymous_kib();
        let (mut conversation, _) = world.open(at(POD_V4, 80));
        let mut last = (0, 0);
        eventually("the server is held up", Duration::from_secs(2), || {
            let now = written.load(Ordering::Relaxed);
            last = if now == last.0 && now > 0 { (now, last.1 + 1) } else { (now, 0) };
            if last.1 == 50 { Ok(()) } else { Err(now) }
        });
        println!("{way:?}: held up after {} bytes", last.0);
        assert!(last.0 < REPLY, "{way:?}: the server could send all");
        let grown = world.daemon.anonymous_kib() - memory;
        assert!(grown < 2048, "{way:?}: the daemon's anonymous memory grew by {grown} KiB");
        pattern.receive(conversation.reader(), REPLY).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        conversation.finish().unwrap();
    }
}

#[test]
fn a_client_that_is_away_for_a_while_gets_all_when_it_is_back() {
    const LENGTH: u64 = 1 << 20;
    for way in [Way::Direct, Way::Steered] {
        let (go, went) = mpsc::channel::<()>();
        let went = std::sync::Mutex::new(went);
        let pattern = Arc::new(Pattern::new(4));
        let (world, _server) = serve(way, {
            let pattern = Arc::clone(&pattern);
            move |mut connection| {
                went.lock().unwrap().recv_timeout(HANG).expect("the sign to begin");
                pattern.send(&mut connection, LENGTH, drop).expect("the server sends");
                connection.read_exact(&mut [0]).expect("the client's thanks");
            }
        });
        let (mut conversation, _) = world.open(at(POD_V4, 80));
        world.net.client.ip("link set dev eth0 down");
        go.send(()).unwrap();
        if way == Way::Steered {
            world.eventually("the daemon has bytes for the client", "/connections/bytes_out", |bytes| {
                bytes.as_u64() > Some(10_000)
            });
        }
        world.net.client.ip("link set dev eth0 up");
        pattern.receive(conversation.reader(), LENGTH).unwrap_or_else(|error| panic!("{way:?}: {error}"));
        conversation.stream().write_all(b"!").unwrap();
        conversation.finish().unwrap();
    }
}

/// Half a minute is how long an answer is waited for.
#[test]
fn a_client_that_never_comes_back_for_the_end_of_an_answer_is_given_up_after_half_a_minute() {
    let (go, went) = mpsc::channel::<()>();
    let went = std::sync::Mutex::new(went);
    let (world, _server) = serve(Way::Steered, move |mut connection| {
        connection.read_exact(&mut [0]).expect_err("the client's FIN");
        went.lock().unwrap().recv_timeout(HANG).expect("the sign to begin");
        // Little enough for a send buffer: all is written, and nothing acknowledged.
        connection.write_all(&[2; 10_000]).expect("the server sends");
    });
    world.eventually_at_rest();
    let fds = world.daemon.fds_at_rest();
    let (conversation, _) = world.open(at(POD_V4, 80));
    conversation.stream().shutdown(std::net::Shutdown::Write).unwrap();
    // Each byte is acknowledged by now, the FIN as well or soon.
    world.net.client.ip("link set dev eth0 down");
    go.send(()).unwrap();
    world.eventually(
        "both have ended, and the client has not acknowledged it",
        "/connections",
        |connections| connections["active"] == 0 && connections["lingering"] == 1,
    );
    let pod = eventually("the daemon gives the client up", Duration::from_secs(30), || {
        let pod = world.pod();
        if pod["connections"]["lingering"] == 0 { Ok(pod) } else { Err(pod) }
    });
    assert_eq!(pod["connections"]["ended"], json!({ "client_unanswering": 1 }), "{pod:#}");
    assert_eq!(pod["connections"]["bytes_lost_to_clients"], 10_000, "{pod:#}");
    world.daemon.eventually_has_fds(fds);
}
