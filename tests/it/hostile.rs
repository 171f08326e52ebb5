//! A pod that works against us, or is set up in a way that we would not choose. Steering goes on or heals; the
//! daemon neither hangs nor spins.

use std::{net::SocketAddr, process::Command, thread, time::Duration};

use nix::sys::signal::Signal;
use redirector_tests::{
    cli::error,
    client::{Conversation, answer_to_a_question_here, at_once},
    daemon::{Daemon, binary},
    eventually::{at_intervals, eventually},
    server::{Place, Server, echo},
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};
use socket2::{Domain, Socket, Type};

/// A pod whose port 80 is steered to a server beside the daemon.
fn steered() -> (World, Server) {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    (world, proxy)
}

/// The addresses of our listeners, IPv4 first.
#[track_caller]
pub(super) fn listeners(world: &World) -> Vec<SocketAddr> {
    let pod = world.pod();
    let mut found: Vec<SocketAddr> = pod["listeners"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|one| one["address"].as_str().expect("an address").parse().expect("an address"))
        .collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found
}

/// Kills a listening socket from inside the pod, as its root can.
#[track_caller]
pub(super) fn kill_listener(world: &World, address: SocketAddr) {
    let port = format!("sport = :{}", address.port());
    // Both listeners have the same port.
    let family = if address.is_ipv4() { "-4" } else { "-6" };
    let outcome = world.net.pod.must("ss", &[family, "-HtlnK", &port]);
    assert!(outcome.stdout.contains(&address.port().to_string()), "must have killed it{outcome}");
}

/// The daemon must rest while nothing happens: beside answering `list` it uses next to no CPU time.
#[track_caller]
fn assert_rests(world: &World) {
    let used = |times| {
        let before = world.daemon.cpu_time();
        let elapsed = at_intervals(times, || drop(world.list()));
        (world.daemon.cpu_time() - before, elapsed)
    };
    let (used, elapsed) = used(50);
    println!("CPU time of the daemon in {elapsed:?} of lists: {used:?}");
    // A loop that spins uses all of it.
    assert!(used < elapsed / 10, "the daemon used {used:?} of CPU time in {elapsed:?}");
}

#[track_caller]
fn assert_served(world: &World) {
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy", "{:#}", world.pod());
    }
}

#[test]
fn a_listener_that_is_killed_from_inside_is_revived() {
    let (world, _proxy) = steered();
    let (mut open, _) = world.open(at(POD_V4, 80));
    for (number, address) in listeners(&world).into_iter().enumerate() {
        kill_listener(&world, address);
        world
            .eventually("it is revived", "/drift/listeners_revived", |revived| *revived == number as u64 + 1);
        let pod = world.eventually("all is well", "/listeners", |listeners| {
            listeners.as_array().unwrap().iter().all(|one| one["healthy"] == true)
        });
        assert_eq!(pod["state"], "steered", "{pod:#}");
        assert_served(&world);
    }
    open.echo("still there").unwrap();
    open.finish().unwrap();
    assert_rests(&world);
}

#[test]
fn a_listener_that_is_killed_twenty_times_is_revived_each_time() {
    let (world, _proxy) = steered();
    for time in 1..=20 {
        kill_listener(&world, listeners(&world)[0]);
        world.eventually("it is revived", "/drift/listeners_revived", |revived| *revived == time);
        assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    }
    assert_rests(&world);
}

#[test]
fn the_port_of_a_listener_that_is_killed_is_nobody_elses() {
    let (world, _proxy) = steered();
    let _open = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80)));
    for time in 1..=20 {
        let address = listeners(&world)[time % 2];
        kill_listener(&world, address);
        // As a server does that was restarted, and whoever wants to have the port of another.
        let taken = world.net.pod.enter(|| {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("socket");
            socket.set_reuse_address(true).expect("SO_REUSEADDR");
            socket.bind(&address.into()).and_then(|()| socket.listen(1))
        });
        let refused = taken.expect_err("the port must not be given to another").kind();
        assert_eq!(refused, std::io::ErrorKind::AddrInUse);
        world.eventually("it is revived", "/drift/listeners_revived", |revived| *revived == time);
        assert_served(&world);
    }
}

#[test]
fn a_namespace_whose_listener_was_killed_dies_as_any_other() {
    let (world, _proxy) = steered();
    for address in listeners(&world) {
        kill_listener(&world, address);
    }
    world.net.pod.delete();
    eventually("the kernel has let the namespace go", super::SECOND * 2, || {
        if world.net.is_joined() { Err(world.list()) } else { Ok(()) }
    });
}

#[test]
fn detach_after_the_listener_was_killed_leaves_the_application() {
    let (world, _proxy) = steered();
    let _app = Server::inside(&world.net.pod, "app", 80);
    for address in listeners(&world) {
        kill_listener(&world, address);
    }
    world.detach();
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "app");
    }
    assert_rests(&world);
}

#[test]
fn an_accepted_connection_that_is_killed_from_inside_ends_alone() {
    let (world, _proxy) = steered();
    let (mut victim, _) = world.open(at(POD_V4, 80));
    let (mut other, _) = world.open(at(POD_V6, 80));
    world.net.pod.must("ss", &["-HtnK", "-4", "state", "established", "sport = :80"]);
    victim.rest().unwrap_err();
    other.echo("still there").unwrap();
    other.finish().unwrap();
    world.eventually_at_rest();
    assert_served(&world);
    assert_rests(&world);
}

#[test]
fn a_queue_for_one_connection_only_serves_all_in_the_end() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.net.pod.sysctl("net/core/somaxconn", "1");
    let answer = world.steer("http", "tcp:80", &proxy.destination());
    assert!(answer["warnings"].to_string().contains("somaxconn"), "{answer:#}");
    for pod in [POD_V4, POD_V6] {
        // Clients speak first: one whose last ACK met a full queue learns of nothing else, with SYN cookies.
        let answers = at_once(&world.net.client, 16, |_| answer_to_a_question_here(at(pod, 80)));
        assert_eq!(answers, ["proxy"; 16]);
    }
    assert_rests(&world);
}

#[test]
fn clients_that_fill_the_queue_of_a_stopped_daemon_are_all_served_when_it_goes_on() {
    const QUEUE: u32 = 16;
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.net.pod.sysctl("net/core/somaxconn", &QUEUE.to_string());
    world.steer("http", "tcp:80", &proxy.destination());
    let port = format!("sport = :{}", listeners(&world)[0].port());
    world.daemon.signal(Signal::SIGSTOP);
    thread::scope(|scope| {
        let clients =
            scope.spawn(|| at_once(&world.net.client, 40, |_| answer_to_a_question_here(at(POD_V4, 80))));
        // Recv-Q of a listener is the length of its queue; the kernel lets one more in than the limit.
        eventually("the queue is full", Duration::from_secs(2), || {
            let outcome = world.net.pod.must("ss", &["-Htln4", &port]);
            let queue: u32 = outcome.stdout.split_whitespace().nth(1).unwrap().parse().unwrap();
            if queue > QUEUE { Ok(()) } else { Err(outcome.stdout) }
        });
        world.daemon.signal(Signal::SIGCONT);
        assert_eq!(clients.join().unwrap(), ["proxy"; 40]);
    });
    world.eventually_at_rest();
    assert_eq!(proxy.accepted(), 40);
    assert_rests(&world);
}

#[test]
fn a_pod_without_ipv6_is_steered_over_ipv4() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    for scope in ["all", "default", "lo"] {
        world.net.pod.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "1");
    }
    world.steer("http", "tcp:80", &proxy.destination());
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    assert_rests(&world);
    // And both when it has it again.
    for scope in ["all", "default", "lo"] {
        world.net.pod.sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "0");
    }
    world.net.pod.ip(&format!("address replace {POD_V6}/64 dev eth0 nodad"));
    assert_served(&world);
}

#[test]
fn a_pod_that_loses_ipv6_while_it_is_steered_goes_on_over_ipv4() {
    let (world, _proxy) = steered();
    assert_served(&world);
    world.net.pod.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    assert_rests(&world);
}

#[test]
fn a_pod_whose_loopback_device_is_down_is_steered_to_host_and_port_and_refused_the_original() {
    let net = Topology::new();
    net.pod.ip("link set lo down");
    let world = World::with(Daemon::start(), net);
    let proxy = Server::here("proxy");
    let target = world.target();
    let outcome = world.cli().run(&["attach", &target, "--match", "tcp:80", "--to", "original"]);
    let said = error(&outcome, 1);
    assert!(said.contains("lo") && said.contains(&target), "must name the device and the target{outcome}");
    assert_eq!(world.list()["namespaces"], serde_json::json!([]));
    world.steer("http", "tcp:80", &proxy.destination());
    assert_served(&world);
    // Nor by a change.
    let outcome =
        world.cli().run(&["attach", &target, "--name", "http", "--match", "tcp:80", "--to", "original"]);
    error(&outcome, 1);
    assert_served(&world);
    world.net.pod.ip("link set lo up");
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("http", "tcp:80", "original");
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
}

#[test]
fn the_pod_can_bind_the_port_of_our_listener_on_its_other_addresses() {
    let (world, _proxy) = steered();
    // Ours is on 127.0.0.1 only.
    let port = listeners(&world)[0].port();
    let app = Server::start(
        Place::In(&world.net.pod),
        "app",
        &[SocketAddr::from(([10, 77, 0, 1], port)), SocketAddr::from(([127, 0, 0, 2], port))],
        echo,
    );
    assert_eq!(world.answer(at(POD_V4, port)), "app");
    assert_eq!(app.accepted(), 1);
}

#[test]
fn a_daemon_with_few_files_resets_what_it_cannot_carry_and_recovers() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64 && exec \"$@\"", "sh"]).arg(binary()).arg("run");
    let world = World::with(Daemon::spawn(&mut command, &[]), Topology::new());
    let _app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    let fds = world.daemon.fds_at_rest();
    for _ in 0..3 {
        let mut open = at_once(&world.net.client, 100, |_| {
            let mut conversation = Conversation::open_here(at(POD_V4, 80))?;
            conversation.greeting().map(|_| conversation)
        });
        let carried = open.iter().filter(|one| one.is_ok()).count();
        println!("{carried} of 100 carried");
        assert!((5..64).contains(&carried), "{carried}");
        for conversation in open.iter_mut().flatten() {
            conversation.echo("carried").unwrap();
        }
        drop(open);
        world.eventually_at_rest();
    }
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
    world.daemon.eventually_has_fds(fds);
    assert_rests(&world);
}

#[test]
fn a_steered_pod_that_only_waits_costs_the_daemon_nothing() {
    let (world, _proxy) = steered();
    let open: Vec<_> = (0..20).map(|_| world.open(at(POD_V4, 80)).0).collect();
    assert_rests(&world);
    assert_eq!(count(&world.pod(), "/connections/active"), 20);
    open.into_iter().for_each(|conversation| conversation.finish().unwrap());
}
