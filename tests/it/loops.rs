//! Destinations that lead back to where their connections come from.

use std::process::Command;

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
