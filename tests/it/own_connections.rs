//! Which accepted connections are the daemon's own that came back, where addresses and ports repeat.

use std::process::Command;

use redirector_tests::{
    client::{Conversation, answer_at},
    daemon::{Daemon, binary},
    server::{Place, Server, echo},
    topology::{CLIENT_V4, CLIENT_V6, POD_V4, POD_V6, Topology, at},
    world::{World, count},
};

#[test]
fn a_client_with_both_addresses_and_ports_of_a_dial_in_another_namespace_is_served() {
    // Two pods with the same addresses, and clients with the same addresses.
    let (world, other) = (World::new(), Topology::new());
    let far = Server::inside(&other.pod, "far", 9000);
    let near = Server::here("near");
    world.steer("far", "tcp:80", &format!("{}/{}", other.client.target(), at(POD_V4, 9000)));
    world.steer("far6", "tcp:81", &format!("{}/{}", other.client.target(), at(POD_V6, 9000)));
    world.steer("near", "tcp:9000", &near.destination());
    for (pod, client, port) in [(POD_V4, CLIENT_V4, 80), (POD_V6, CLIENT_V6, 81)] {
        for _ in 0..20 {
            let (mut open, name) = world.open(at(pod, port));
            assert_eq!(name, "far");
            let own = *far.peers().last().expect("a client");
            assert_eq!(own.ip(), client, "the daemon's end has the address of a client");
            assert_eq!(answer_at(&world.net.client, own, at(pod, 9000)), "near", "{own}");
            open.echo("undisturbed").expect("the other connection goes on");
            open.reset();
        }
    }
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/failed/loop"), 0, "{pod:#}");
}

#[test]
fn a_way_back_is_found_where_another_namespace_has_the_same_addresses() {
    let (world, other) = (World::new(), Topology::new());
    let _far = Server::inside(&other.pod, "far", 9000);
    world.steer("far", "tcp:80", &format!("{}/{}", other.client.target(), at(POD_V4, 9000)));
    let _open: Vec<_> = (0..20).map(|_| world.open(at(POD_V4, 80))).collect();
    // The same by text, but it leads back.
    world.steer("back", "tcp:9000", &format!("{}/{}", world.net.client.target(), at(POD_V4, 9000)));
    for number in 1..=20 {
        assert_eq!(world.answer(at(POD_V4, 9000)), "reset");
        world.eventually("it is found", "/connections/failed/loop", |found| *found == number);
    }
    let pod = world.pod();
    // The client's connection and the one that came back, each time.
    assert_eq!(count(&pod, "/connections/accepted"), 20 + 2 * 20, "{pod:#}");
}

#[test]
fn clients_from_the_daemons_own_address_with_few_ports_are_served() {
    const AT_ONCE: u16 = 40;
    let net = Topology::new();
    let netns = format!("--net={}", net.client.path().display());
    let daemon = Daemon::spawn(Command::new("nsenter").arg(netns).arg(binary()).arg("run"), &[]);
    let world = World::with(daemon, net);
    let behind = [10, 77, 0, 3].into();
    world.net.pod.ip("address add 10.77.0.3/24 dev eth0");
    world.net.client.sysctl("net/ipv4/ip_local_port_range", "40000 40099");
    let addresses: Vec<_> = (0..AT_ONCE).map(|number| at(behind, 1000 + number)).collect();
    let server = Server::start(Place::In(&world.net.pod), "behind", &addresses, echo);
    world.steer("all", &format!("tcp:{POD_V4}:*"), &format!("{behind}:*"));
    for _ in 0..2000 / AT_ONCE {
        let open: Vec<_> = world.net.client.enter(|| {
            (0..AT_ONCE)
                .map(|number| {
                    let mut client = Conversation::open_here(at(POD_V4, 1000 + number))?;
                    client.greeting().map(|greeting| (client, greeting))
                })
                .collect()
        });
        for client in open {
            let (client, greeting) = client.expect("each client is served");
            assert_eq!(greeting.server, "behind");
            client.reset();
        }
    }
    let peers = server.peers();
    assert_eq!(peers.len(), 2000);
    assert!(peers.iter().all(|peer| peer.ip() == CLIENT_V4 && (40_000..40_100).contains(&peer.port())));
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/failed/loop"), 0, "{pod:#}");
    assert_eq!(count(&pod, "/connections/relayed"), 2000, "{pod:#}");
}
