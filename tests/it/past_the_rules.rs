//! A process in a steered namespace, without any capability, that wants to go past the rules as the daemon's own connections
//! to applications do.

use std::{
    io::{self, ErrorKind},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    process::Command,
    time::Duration,
};

use redirector_tests::{
    HANG,
    client::{Conversation, answer},
    daemon::{Daemon, binary},
    netns::Netns,
    server::{Place, Server, echo, everywhere},
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};
use socket2::{Domain, Socket, Type};

use super::handoff::ask;

const ADDRESSES: [IpAddr; 4] =
    [POD_V4, POD_V6, IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Until the attacker takes silence for an answer, where somebody may be silent.
const SILENCE: Duration = Duration::from_millis(100);

/// The ports of a server that nobody should reach, each with a rule of its own, and who answers an honest client.
const GUARDED: [(u16, &str); 4] = [(81, "refused"), (82, "silence"), (83, "proxy"), (84, "leased")];

/// Binds as someone who wants to share a port with whoever has it.
fn share(end: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(end), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&end.into())?;
    Ok(socket)
}

/// Who answers a bound socket.
fn heard_by(socket: Socket, to: SocketAddr) -> String {
    let answers = GUARDED.iter().any(|(port, honest)| *port == to.port() && *honest != "silence");
    let patience = if answers { HANG } else { SILENCE };
    match socket.connect_timeout(&to.into(), patience).and_then(|()| {
        socket.set_read_timeout(Some(patience))?;
        Conversation::with(socket.into())?.greeting()
    }) {
        Ok(greeting) => greeting.server,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => "refused".to_owned(),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "silence".to_owned(),
            kind => kind.to_string(),
        },
    }
}

/// From the very end of one of the daemon's connections, each time anew: who answers, or why it cannot be tried.
fn attack(netns: &Netns, end: SocketAddr, to: SocketAddr) -> String {
    netns.enter_as_nobody(|| match share(end) {
        Ok(socket) => heard_by(socket, to),
        Err(error) => error.kind().to_string(),
    })
}

/// A pod with an application on port 80, which is reached by `original`, and with servers on guarded ports.
struct Guarded {
    world: World,
    app: Server,
    _secret: Vec<Server>,
    _others: [Server; 2],
}

impl Guarded {
    fn new() -> Self {
        let world = World::new();
        let app = Server::inside(&world.net.pod, "app", 80);
        let secret =
            GUARDED.map(|(port, _)| Server::inside(&world.net.pod, "secret", port)).into_iter().collect();
        let proxy = Server::here("proxy");
        world.steer("open", "tcp:80", "original");
        world.steer("refused", "tcp:81", "reject");
        world.steer("silent", "tcp:82", "drop");
        world.steer("elsewhere", "tcp:83", &proxy.destination());
        let leased = Server::of(ask(&world, "tcp:84", "leased"), "leased", echo);
        Self { world, app, _secret: secret, _others: [proxy, leased] }
    }

    /// A connection, and the daemon's own end of it.
    fn open(&self, from: &Netns, address: IpAddr) -> (Conversation, SocketAddr) {
        let mut open = Conversation::open(from, at(address, 80)).expect("connect");
        assert_eq!(open.greeting().expect("a greeting").server, "app");
        let own = *self.app.peers().last().expect("a client");
        assert_eq!(own.ip(), address);
        (open, own)
    }

    #[track_caller]
    fn assert_guarded(&self, own: SocketAddr, when: &str) {
        for (port, honest) in GUARDED {
            let heard = attack(&self.world.net.pod, own, at(own.ip(), port));
            let kept_out = heard == "address in use" || heard == honest;
            assert!(kept_out, "{when}, from {own} to port {port}: {heard}");
        }
    }
}

#[test]
fn nobody_goes_past_a_rule_from_the_daemons_own_end() {
    let guarded = Guarded::new();
    let (pod, client) = (&guarded.world.net.pod, &guarded.world.net.client);
    for address in ADDRESSES {
        let froms = if address.is_loopback() { vec![pod] } else { vec![client, pod] };
        for from in froms {
            let (mut open, own) = guarded.open(from, address);
            assert_eq!(attack(pod, own, at(address, 81)), "address in use", "{own}");
            guarded.assert_guarded(own, "while a connection is open");
            open.echo("hello").unwrap();
            open.finish().unwrap();
            guarded.assert_guarded(own, "after it has ended");
        }
        for (port, honest) in GUARDED {
            if port != 82 {
                assert_eq!(answer(pod, at(address, port)), honest);
            }
        }
    }
    guarded.world.eventually_at_rest();
}

#[test]
fn nobody_goes_past_a_rule_from_the_daemons_own_end_while_a_connection_ends() {
    // An application that does not close its side: what is half closed stays so.
    let world = World::new();
    let (ended, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let handler = move |connection: &Socket| {
        echo(connection);
        wait.lock().unwrap().recv().unwrap_or_default();
    };
    let app = Server::start(Place::In(&world.net.pod), "app", &everywhere(80), handler);
    // Dropped before the application, which waits for it.
    let ended = ended;
    let _secret = Server::inside(&world.net.pod, "secret", 81);
    for pod in [POD_V4, POD_V6] {
        world.steer("open", "tcp:80", "original");
        world.steer("refused", "tcp:81", "reject");
        let (mut open, _) = world.open(at(pod, 80));
        open.echo("hello").unwrap();
        let own = *app.peers().last().unwrap();
        // The rule for new connections; the open one goes on.
        world.steer("open", "tcp:80", "reject");
        open.stream().shutdown(Shutdown::Write).unwrap();
        // As soon as applications can have the port, the two ends are nobody's but this connection's.
        let shared =
            redirector_tests::eventually::eventually("the port can be shared", super::SECOND, || {
                world.net.pod.enter_as_nobody(|| share(own))
            });
        let same = world.net.pod.enter_as_nobody(|| heard_by(shared, at(pod, 80)));
        assert_ne!(same, "app", "the connection is there already");
        assert_eq!(attack(&world.net.pod, own, at(pod, 81)), "refused");
        ended.send(()).unwrap();
        assert!(open.rest().unwrap().is_empty());
        world.eventually_at_rest();
        assert_ne!(attack(&world.net.pod, own, at(pod, 80)), "app");
        assert_eq!(attack(&world.net.pod, own, at(pod, 81)), "refused");
    }
}

#[test]
fn a_port_where_somebody_waits_for_the_daemon_is_not_taken() {
    let guarded = Guarded::new();
    let pod = &guarded.world.net.pod;
    for address in ADDRESSES {
        // The ports that come next: the daemon takes one after the other.
        let next = guarded.open(pod, address).1.port() + 1;
        let waiting: Vec<_> = pod
            .enter_as_nobody(|| (next..next + 20).filter_map(|port| share(at(address, port)).ok()).collect());
        assert!(waiting.len() > 10, "{address}");
        let (_open, own) = guarded.open(pod, address);
        assert!(!(next..next + 20).contains(&own.port()), "{own}");
        // They meet the rules like anybody else.
        let heard = pod.enter_as_nobody(|| {
            waiting.into_iter().map(|socket| heard_by(socket, at(address, 81))).collect::<Vec<_>>()
        });
        assert!(heard.iter().all(|heard| heard == "refused"), "{heard:?}");
    }
}

#[test]
fn nobody_goes_past_a_rule_from_the_end_of_a_connection_that_came_from_another_namespace() {
    let (world, other) = (World::new(), Topology::new());
    let server = Server::inside(&other.pod, "other", 8080);
    let _secret = Server::inside(&other.pod, "secret", 81);
    let target = other.pod.target();
    let attach = |rule: &str| {
        let words: Vec<_> = ["attach", &target].into_iter().chain(rule.split(' ')).collect();
        world.cli().json(&words);
    };
    attach("--name all --match tcp:* --to original");
    attach("--name refused --match tcp:81 --to reject");
    for address in ADDRESSES {
        world.steer("there", "tcp:80", &format!("{target}/{}", at(address, 8080)));
        let (_open, name) = world.open(at(POD_V4, 80));
        assert_eq!(name, "other");
        let own = *server.peers().last().unwrap();
        assert_eq!(attack(&other.pod, own, at(address, 81)), "address in use", "{own}");
    }
}

#[test]
fn nobody_goes_past_a_rule_from_an_end_in_the_daemons_own_namespace() {
    let net = Topology::new();
    let netns = format!("--net={}", net.pod.path().display());
    let daemon = Daemon::spawn(Command::new("nsenter").arg(&netns).arg(binary()).arg("run"), &[]);
    let world = World::with(daemon, net);
    let pod = &world.net.pod;
    let server = Server::inside(pod, "proxy", 9000);
    let _secret = Server::inside(pod, "secret", 81);
    for address in ADDRESSES {
        world.attach(&format!("--name all --match tcp:* --to {} --host-netns", at(address, 9000)));
        world.attach("--name refused --match tcp:81 --to reject --host-netns");
        let (_open, name) = world.open(at(POD_V4, 80));
        assert_eq!(name, "proxy");
        let own = *server.peers().last().unwrap();
        assert_eq!(attack(pod, own, at(address, 81)), "address in use", "{own}");
    }
}

/// Binds ports, as many as are free, alone.
fn hold_ports(netns: &Netns, address: IpAddr, ports: impl IntoIterator<Item = u16> + Send) -> Vec<Socket> {
    netns.enter_as_nobody(|| {
        let socket = |port| {
            let socket =
                Socket::new(Domain::for_address(at(address, 0)), Type::STREAM, None).expect("socket");
            socket.bind(&at(address, port).into()).map(|()| socket).ok()
        };
        ports.into_iter().filter_map(socket).collect()
    })
}

#[test]
fn nobody_stops_the_way_to_the_application_by_holding_every_port_outside_of_the_range() {
    let world = World::new();
    // Few ports are left outside, so that the test needs few files; the application's own is in the range.
    world.net.pod.sysctl("net/ipv4/ip_local_port_range", "10050 65000");
    let app = Server::inside(&world.net.pod, "app", 80);
    let high = Server::inside(&world.net.pod, "high", 20_000);
    world.steer("self", "tcp:80,20000", "original");
    // Of both families.
    let any = Ipv6Addr::UNSPECIFIED.into();
    let held = hold_ports(&world.net.pod, any, (10_000..10_050).chain(65_001..=65_535));
    // One may be our listener's.
    assert!(held.len() >= 50 + 534, "{}", held.len());
    for address in ADDRESSES {
        for (port, name) in [(80, "app"), (20_000, "high")] {
            for _ in 0..5 {
                assert_eq!(answer(&world.net.pod, at(address, port)), name, "{address}");
            }
        }
    }
    // The one that is our listener's is nobody else's, at the addresses where the listener is not.
    let port_of = |socket: &Socket| {
        socket.local_addr().ok().and_then(|address| address.as_socket()).map(|one| one.port())
    };
    let held: Vec<_> = held.iter().filter_map(port_of).collect();
    for peer in app.peers().iter().chain(&high.peers()) {
        let is_free = (10_000..=65_535).contains(&peer.port()) && !held.contains(&peer.port());
        assert!((10_050..=65_000).contains(&peer.port()) || is_free, "{peer}");
    }
    assert_eq!(count(&world.pod(), "/connections/failed/no_source_port"), 0);
}

#[test]
fn a_connection_never_comes_from_the_port_that_it_goes_to_whatever_is_held() {
    let world = World::new();
    // Of its range the kernel may choose three ports, two of which clients ask for, and nobody listens there.
    world.net.pod.sysctl("net/ipv4/ip_local_port_range", "10000 65533");
    world.net.pod.sysctl("net/ipv4/ip_local_reserved_ports", "10003-65533");
    world.steer("self", "tcp:10001,10002", "original");
    let held = hold_ports(&world.net.pod, POD_V4, [10_000, 65_534, 65_535]);
    assert_eq!(held.len(), 3);
    for port in [10_001, 10_002] {
        for _ in 0..10 {
            assert_eq!(world.answer(at(POD_V4, port)), "reset");
        }
    }
    let pod = world.eventually_at_rest();
    assert_eq!(count(&pod, "/connections/failed/connect_refused"), 20, "{pod:#}");
    // And where none is left at all it is said, and passes.
    let last = hold_ports(&world.net.pod, POD_V4, [10_001, 10_002]);
    assert_eq!(world.answer(at(POD_V4, 10_001)), "reset");
    let pod = world.eventually("it is counted", "/connections/failed/no_source_port", |failed| *failed == 1);
    assert_eq!(pod["state"], "steered", "{pod:#}");
    drop((held, last));
    let _app = Server::inside(&world.net.pod, "app", 10_001);
    assert_eq!(world.answer(at(POD_V4, 10_001)), "app");
}
