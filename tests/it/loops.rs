//! Destinations that lead back to where their connections come from.

use std::{io::BufRead as _, process::Command};

use redirector_tests::{
    client::answer,
    daemon::{Daemon, binary},
    server::Server,
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};

/// The daemon in the client's namespace, from where the pod can be reached.
fn daemon_beside_the_client(net: &Topology) -> Daemon {
    let netns = format!("--net={}", net.client.path().display());
    Daemon::spawn(Command::new("nsenter").arg(netns).arg(binary()).arg("run"), &[])
}

#[test]
fn a_destination_that_leads_back_to_the_pod_is_reset_at_once_and_counted() {
    let net = Topology::new();
    let daemon = daemon_beside_the_client(&net);
    let world = World::with(daemon, net);
    world.steer("back", "tcp:*", &at(POD_V4, 9000).to_string());
    assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/failed/loop"), 1, "{pod:#}");
    // The client's connection, and the one that came back; a second one where the first check came too early.
    assert!(count(&pod, "/connections/accepted") <= 4, "{pod:#}");
}

#[test]
fn the_daemons_own_namespace_can_be_steered_to_its_own_loopback_without_a_loop() {
    let net = Topology::new();
    let netns = format!("--net={}", net.pod.path().display());
    let daemon = Daemon::spawn(Command::new("nsenter").arg(&netns).arg(binary()).arg("run"), &[]);
    let world = World::with(daemon, net);
    let _server = Server::inside(&world.net.pod, "proxy", 9000);
    for destination in ["127.0.0.1:9000", "[::1]:9000"] {
        world.attach(&format!("--name all --match tcp:* --to {destination} --host-netns"));
        for address in [POD_V4, POD_V6, [127, 0, 0, 1].into(), [127, 0, 0, 5].into()] {
            assert_eq!(answer(&world.net.pod, at(address, 80)), "proxy", "{address} to {destination}");
        }
        assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    }
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/accepted"), 10, "{pod:#}");
    assert_eq!(count(&pod, "/rules/0/counters/bypassed"), 10, "{pod:#}");
}

/// The daemon's own end of a dial to its loopback address is, as text, some client's in another namespace too.
#[test]
fn a_client_on_loopback_with_the_same_port_as_a_dial_of_ours_is_not_taken_for_it() {
    let (world, server) = (World::new(), Server::here("server"));
    world.steer("http", "tcp:80", &server.destination());
    let (_open, _) = world.open(at(POD_V4, 80));
    let own = server.peers()[0];
    let loopback = at([127, 0, 0, 1].into(), 80);
    let greeting = world.net.pod.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&loopback.into()).unwrap();
        let mut line = String::new();
        std::io::BufReader::new(socket).read_line(&mut line).map(|_| line)
    });
    assert!(greeting.as_ref().is_ok_and(|line| line.contains("server")), "{greeting:?}");
}
