//! What a detach waits for: handshakes that our listeners have answered, and nothing else.

use std::{
    io::{ErrorKind, Write as _},
    net::{SocketAddr, TcpStream},
    process::Command,
    thread,
};

use redirector_tests::{
    client::Conversation,
    daemon::{Daemon, binary},
    eventually::eventually,
    netns::Netns,
    server::Server,
    topology::{CLIENT_V4, CLIENT_V6, POD_V4, POD_V6, Topology, at},
    world::World,
};
use socket2::{Domain, SockRef, Socket, Type};

use crate::SECOND;

/// What a client with this mark acknowledges does not arrive, so that its handshakes are not finished.
const HELD: u32 = 7;

/// With a daemon that says how it waits.
fn world() -> World {
    let mut command = Command::new("env");
    command.arg("RUST_LOG=info,redirector=debug").arg(binary()).arg("run");
    let world = World::with(Daemon::spawn_with_log_read(&mut command, &[]), Topology::new());
    for namespace in [&world.net.client, &world.net.pod] {
        let rule = format!(
            "table inet hold {{ chain output {{ type filter hook output priority 0; \
             meta mark {HELD} tcp flags & (syn | ack) == ack drop; }}; }}"
        );
        namespace.must("nft", &[&rule]);
    }
    world
}

/// A client that takes itself for connected.
fn held(from: &Netns, to: SocketAddr) -> TcpStream {
    from.enter(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_mark(HELD).unwrap();
        socket.connect(&to.into()).unwrap();
        socket.into()
    })
}

/// Lets what a client acknowledges arrive: its next segment finishes the handshake.
fn let_go(mut client: &TcpStream) {
    SockRef::from(client).set_mark(0).unwrap();
    client.write_all(b"hello").unwrap();
}

/// Detaches, and waits until the log says so: after all that it says of the wait.
fn detach(world: &World) {
    let said = || world.daemon.log_with(&[" detach netns="]).len();
    let before = said();
    world.detach();
    let told = || Some(()).filter(|()| said() > before).ok_or_else(|| world.daemon.log());
    eventually("the log says so", SECOND, told);
}

/// How the daemon's waits have ended.
fn ends(world: &World) -> Vec<String> {
    let lines = world.daemon.log_with(&["handshakes under way", "end="]);
    let end = |line: &String| line.rsplit_once("end=").unwrap().1.split(' ').next().unwrap().to_owned();
    lines.iter().map(end).collect()
}

fn waits(world: &World) -> usize {
    world.daemon.log_with(&["waiting for handshakes under way"]).len()
}

#[test]
fn a_client_whose_handshake_is_under_way_at_a_detach_is_served() {
    let (world, proxy) = (world(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    for (number, (from, to)) in
        [(&world.net.client, POD_V4), (&world.net.client, POD_V6), (&world.net.pod, POD_V4)]
            .into_iter()
            .enumerate()
    {
        // They have 100 ms: on a slow machine the next one may be served.
        let served = (0..5).any(|_| {
            world.steer("http", "tcp:80", &proxy.destination());
            let (waits_before, ends_before) = (waits(&world), ends(&world).len());
            let clients = [(); 3].map(|()| held(from, at(to, 80)));
            thread::scope(|scope| {
                let detached = scope.spawn(|| detach(&world));
                while waits(&world) == waits_before {
                    thread::yield_now();
                }
                clients.iter().for_each(let_go);
                detached.join().unwrap();
            });
            if ends(&world)[ends_before..] != ["Finished"] {
                return false;
            }
            for client in clients {
                let mut client = Conversation::with(client).unwrap();
                assert_eq!(client.greeting().unwrap().server, "proxy", "{number}");
                let mut heard = [0; 5];
                std::io::Read::read_exact(&mut client.reader(), &mut heard).unwrap();
                assert_eq!(&heard, b"hello", "{number}");
                client.finish().unwrap();
            }
            true
        });
        assert!(served, "{number}: {:#?}", world.daemon.log());
        assert_eq!(world.answer(at(POD_V4, 80)), "app");
    }
}

#[test]
fn a_handshake_that_is_not_finished_in_time_is_not_waited_for() {
    let (world, proxy) = (world(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    let client = held(&world.net.client, at(POD_V4, 80));
    detach(&world);
    assert_eq!(ends(&world), ["Late"]);
    let_go(&client);
    let error = Conversation::with(client).unwrap().greeting().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_detach_waits_for_no_handshake_where_none_is_ours() {
    let (world, proxy) = (world(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 81);
    let mut expected = Vec::new();
    let mut detached = |what: &str| {
        detach(&world);
        expected.push("None");
        assert_eq!(ends(&world), expected, "{what}");
        assert_eq!(waits(&world), 0, "{what}");
    };
    world.steer("http", "tcp:80", &proxy.destination());
    detached("nobody is there");

    world.steer("http", "tcp:80", &proxy.destination());
    let mut open = world.open(at(POD_V6, 80)).0;
    detached("one is established");
    open.echo("and goes on").unwrap();

    world.steer("http", "tcp:80", &proxy.destination());
    let of_app = [POD_V4, POD_V6].map(|pod| held(&world.net.client, at(pod, 81)));
    detached("those that are under way are the application's");
    drop(of_app);

    world.attach(&format!(
        "--name http --match tcp:80 --from {CLIENT_V4} --from {CLIENT_V6} --to {}",
        proxy.destination()
    ));
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    detached("one has come and gone");

    // By their sources they are for nobody else than the application.
    let _other = Server::inside(&world.net.pod, "other", 80);
    world.attach(&format!("--name http --match tcp:80 --from 192.0.2.0/24 --to {}", proxy.destination()));
    let of_other = [POD_V4, POD_V6].map(|pod| held(&world.net.client, at(pod, 80)));
    detached("they come from elsewhere");
    drop(of_other);
}

#[test]
fn a_detach_of_rules_that_need_no_listener_looks_for_no_handshake() {
    let world = world();
    let _app = Server::inside(&world.net.pod, "app", 80);
    for to in ["reject", "drop", "pass"] {
        world.steer("http", "tcp:80", to);
        detach(&world);
        assert_eq!(ends(&world), [""; 0], "{to}");
    }
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
}
