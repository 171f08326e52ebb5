//! `drop`: no answer at all, by real traffic.

use std::{net::SocketAddr, process::Command};

use redirector_tests::{
    client::answer,
    command::must,
    eventually::eventually,
    netns::Netns,
    server::Server,
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, at},
    udp,
    world::{World, count},
};
use socket2::{Domain, Socket, Type};

use crate::SECOND;

/// A client that has sent its SYN.
pub(super) fn begin(from: &Netns, to: SocketAddr) -> Socket {
    let socket = from
        .enter(|| Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), None))
        .expect("a socket");
    let begun = socket.connect(&to.into()).expect_err("it takes its time");
    assert_eq!(begun.raw_os_error(), Some(nix::libc::EINPROGRESS), "{begun}");
    socket
}

/// Whether it waits for an answer: neither connected nor refused.
#[track_caller]
pub(super) fn assert_waits(client: &Socket) {
    assert!(client.take_error().expect("SO_ERROR").is_none(), "it was refused");
    let peer = client.peer_addr().expect_err("it must not be connected");
    assert_eq!(peer.raw_os_error(), Some(nix::libc::ENOTCONN), "{peer}");
}

#[test]
fn a_client_hears_nothing_and_connects_when_the_rule_is_changed() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let _app = [80, 82].map(|port| Server::inside(&world.net.pod, "app", port));
    world.steer("silent", "tcp:80", "drop");
    world.steer("no", "tcp:81", "reject");
    let clients = [POD_V4, POD_V6].map(|pod| {
        let client = begin(&world.net.client, at(pod, 80));
        // Whoever comes after it is answered.
        assert_eq!(world.answer(at(pod, 81)), "refused");
        assert_eq!(world.answer(at(pod, 82)), "app");
        assert_waits(&client);
        client
    });
    // Clients inside are no others.
    let inside = begin(&world.net.pod, at(POD_V4, 80));
    assert_eq!(answer(&world.net.pod, at(POD_V4, 82)), "app");
    assert_waits(&inside);
    let rule = world.rule("silent");
    assert!(count(&rule, "/counters/dropped") >= 3, "{rule:#}");
    assert_eq!(count(&world.pod(), "/connections/accepted"), 0);

    world.steer("silent", "tcp:80", &proxy.destination());
    for client in clients.into_iter().chain([inside]) {
        // By the SYN that it sends again: nothing had told it not to.
        eventually("it is connected", SECOND * 3, || client.peer_addr());
    }
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
    }
}

#[test]
fn an_unavailable_rule_can_be_silent() {
    let world = World::new();
    world.attach("--name gone --match tcp:80 --to unix:/nowhere.sock --on-unavailable drop");
    // Three dials that fail take it down.
    for _ in 0..3 {
        assert_eq!(world.answer(at(POD_V4, 80)), "reset");
    }
    world.eventually("it is down", "/rules/0/state", |state| state == "down");
    world.eventually("the kernel knows it too", "/rules/0/counters/unavailable", |_| {
        drop(begin(&world.net.client, at(POD_V4, 80)));
        count(&world.rule("gone"), "/counters/unavailable") > 0
    });
    world.steer("no", "tcp:81", "reject");
    for pod in [POD_V4, POD_V6] {
        let client = begin(&world.net.client, at(pod, 80));
        assert_eq!(world.answer(at(pod, 81)), "refused");
        assert_waits(&client);
    }
}

#[test]
fn nothing_of_it_is_left_and_it_is_mended() {
    let world = World::new();
    let before = Snapshot::of(&world.net.pod);
    let fds = world.daemon.fds_at_rest();
    world.steer("other", "tcp:81", "reject");
    // The relay has listeners of its own, which stay.
    world.steer("relayed", "tcp:83", "unix:/nowhere.sock");
    let usual = listening(&world.net.pod);
    world.steer("silent", "tcp:80", "drop");
    let both = listening(&world.net.pod);
    let of_it: Vec<_> = both.iter().filter(|one| !usual.contains(one)).collect();
    assert_eq!(of_it.len(), 2, "{both:?}");
    // Killed from inside it listens again.
    for address in of_it {
        let port = format!("sport = :{}", address.rsplit_once(':').expect("a port").1);
        let family = if address.starts_with('[') { "-6" } else { "-4" };
        world.net.pod.must("ss", &[family, "-HtlnK", &port]);
    }
    world.eventually("both are revived", "/drift/listeners_revived", |revived| *revived == 2);
    let client = begin(&world.net.client, at(POD_V6, 80));
    assert_eq!(world.answer(at(POD_V6, 81)), "refused");
    assert_waits(&client);
    drop(client);
    // Only for as long as a rule leads to it.
    world.steer("silent", "tcp:80", "reject");
    assert_eq!(listening(&world.net.pod), usual);
    world.attach("--name gone --match tcp:82 --to unix:/nowhere.sock --on-unavailable drop");
    assert_eq!(listening(&world.net.pod).len(), both.len());
    world.cli().json(&["detach", &world.target(), "--rule", "gone"]);
    assert_eq!(listening(&world.net.pod), usual);
    world.detach();
    world.daemon.eventually_has_fds(fds);
    Snapshot::of(&world.net.pod).assert_same_as(&before);
}

#[test]
fn what_it_leads_to_is_revived_as_soon_as_it_is_killed_however_often() {
    let world = World::new();
    world.steer("other", "tcp:81", "reject");
    world.steer("relayed", "tcp:83", "unix:/nowhere.sock");
    let usual = listening(&world.net.pod);
    world.steer("silent", "tcp:80", "drop");
    let of_it: Vec<_> = listening(&world.net.pod).into_iter().filter(|one| !usual.contains(one)).collect();
    let port = format!("sport = :{}", of_it[0].rsplit_once(':').expect("a port").1);
    for time in 1..=10 {
        world.net.pod.must("ss", &["-HtlnK", &port]);
        // Well before what is looked at every 2 s is looked at: twenty of them would take too long.
        eventually("both are revived", SECOND / 10, || {
            let pod = world.pod();
            if pod["drift"]["listeners_revived"] == 2 * time { Ok(()) } else { Err(pod) }
        });
        for pod in [POD_V4, POD_V6] {
            let client = begin(&world.net.client, at(pod, 80));
            assert_eq!(world.answer(at(pod, 81)), "refused");
            assert_waits(&client);
        }
    }
    // One that a change has made is watched as the first.
    world.steer("silent", "tcp:80", "reject");
    world.steer("silent", "tcp:80", "drop");
    world.net.pod.must("ss", &["-HtlnK"]);
    world.eventually("all are revived", "/drift/listeners_revived", |revived| *revived == 2 * 10 + 4);
    let client = begin(&world.net.client, at(POD_V4, 80));
    assert_eq!(world.answer(at(POD_V4, 81)), "refused");
    assert_waits(&client);
}

#[test]
fn datagrams_vanish_as_before_when_the_socket_that_takes_them_is_killed() {
    let world = World::new();
    world.steer("silent", "udp:80", "drop");
    world.steer("no", "udp:81", "reject");
    for pod in [POD_V4, POD_V6] {
        for _ in 0..3 {
            world.net.pod.must("ss", &["-HuanK"]);
            let silent = udp::client(&world.net.client, at(pod, 80));
            silent.send(b"anybody?").expect("send");
            let refused = udp::client(&world.net.client, at(pod, 81));
            // An answer to the first one would have come before this one.
            udp::assert_refused(&refused);
            assert!(silent.take_error().expect("SO_ERROR").is_none(), "it was refused");
        }
    }
    assert!(count(&world.rule("silent"), "/counters/dropped") >= 6);
}

/// Where somebody listens.
fn listening(netns: &Netns) -> Vec<String> {
    let shown = netns.enter(|| must(Command::new("ss").arg("-Htln"))).stdout;
    shown.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect()
}
