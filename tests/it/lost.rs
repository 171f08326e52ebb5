//! Bytes that a client's TCP knows to have arrived, and that no destination got: they are counted.

use std::{io::Write as _, sync::mpsc, time::Duration};

use redirector_tests::{
    HANG,
    client::Conversation,
    eventually::eventually,
    netns::Netns,
    server::{Server, listen},
    tcp,
    topology::{POD_V4, POD_V6, at},
    world::World,
};
use rustix::io::ioctl_fionread;

use crate::{SECOND, destinations::silent};

const SENT: usize = 200_000;

/// Waits until the client's connection has nothing that is not acknowledged.
#[track_caller]
fn eventually_acknowledged(client: &Netns) {
    eventually("all is acknowledged", SECOND, || {
        let unacknowledged = client.enter(|| tcp::unacknowledged("dport = :80"));
        if unacknowledged == [0] { Ok(()) } else { Err(unacknowledged) }
    });
}

#[test]
fn what_a_destination_that_resets_has_not_acknowledged_is_counted() {
    for pod in [POD_V4, POD_V6] {
        let world = World::new();
        let listener = listen(at([127, 0, 0, 1].into(), 0));
        // So that most of it stays with the relay.
        listener.set_recv_buffer_size(4096).expect("SO_RCVBUF");
        let (go, gone) = mpsc::channel::<()>();
        let gone = std::sync::Mutex::new(gone);
        let (got, arrived) = mpsc::channel();
        let server = Server::of(vec![listener], "deaf", move |connection| {
            let told = || gone.lock().expect("no panic").recv_timeout(HANG).expect("told to go on");
            told();
            got.send(ioctl_fionread(connection).expect("FIONREAD")).expect("somebody waits");
            told();
            connection.set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        });
        world.steer("deaf", "tcp:80", &server.destination());
        let (conversation, _) = world.open(at(pod, 80));
        conversation.stream().write_all(&[7; SENT]).expect("send");
        eventually_acknowledged(&world.net.client);
        go.send(()).expect("the server waits");
        let arrived = arrived.recv_timeout(HANG).expect("what arrived");
        eventually("that is acknowledged", SECOND, || {
            let acknowledged = tcp::acknowledged(&format!("dport = :{}", server.addresses()[0].port()));
            if acknowledged == [arrived] { Ok(()) } else { Err((acknowledged, arrived)) }
        });
        go.send(()).expect("the server waits");
        let pod =
            world.eventually("it has ended", "/connections/ended/destination_failed", |ended| ended == 1);
        assert!(arrived < SENT as u64 / 2, "{arrived} of {SENT} arrived");
        assert_eq!(pod["connections"]["bytes_lost"], SENT as u64 - arrived, "{arrived} arrived: {pod:#}");
    }
}

#[test]
fn what_a_client_has_sent_to_a_destination_that_cannot_be_reached_is_counted() {
    let (address, _sockets) = silent();
    let world = World::new();
    world.attach(&format!("--name silent --match tcp:80 --to {address} --connect-timeout 1s"));
    let conversation = Conversation::open(&world.net.client, at(POD_V4, 80)).expect("connect");
    conversation.stream().write_all(&[7; 1000]).expect("send");
    let pod =
        world.eventually("it was given up", "/connections/failed/connect_timeout", |failed| failed == 1);
    assert_eq!(pod["connections"]["bytes_lost"], 1000, "{pod:#}");
}

#[test]
fn of_a_connection_that_ends_well_nothing_is_lost() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    let (mut conversation, _) = world.open(at(POD_V4, 80));
    conversation.echo("all of this").expect("an echo");
    conversation.finish().expect("an end");
    assert_eq!(world.eventually_at_rest()["connections"]["bytes_lost"], 0);
}
