//! Namespaces that end while they are steered: we never keep one, and never take another one for it.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use redirector_tests::{
    HANG,
    cli::error,
    client::{Conversation, Stop, answer},
    command::must,
    daemon::Daemon,
    dir::Dir,
    eventually::{at_intervals, eventually},
    features::Feature,
    holder::Holder,
    netns::Netns,
    server::{Place, Server},
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};

/// How long a namespace may live after its last process and mount are gone.
const FIGURE: Duration = Duration::from_secs(2);

/// Takes the pod away, and asserts that it dies and that the daemon forgets it.
#[track_caller]
fn assert_dies(world: &World) {
    let target = world.target();
    world.net.pod.delete();
    assert_is_gone(world, &target);
}

#[track_caller]
fn assert_is_gone(world: &World, target: &str) {
    // The kernel takes the other end of the veth pair away when the namespace of the one is gone.
    eventually("the kernel has let the namespace go", FIGURE, || {
        if world.net.is_joined() { Err(world.list()) } else { Ok(()) }
    });
    eventually("`list` does not have it", FIGURE, || {
        let list = world.list();
        let empty = serde_json::json!([]);
        if list["namespaces"] == empty && list["draining"] == empty { Ok(()) } else { Err(list) }
    });
    let outcome = world.cli().run(&["detach", target]);
    assert!(error(&outcome, 3).contains(target), "{outcome}");
}

/// A world whose port 80 is steered to a server beside the daemon.
fn steered(pod: Netns) -> (World, Server) {
    let proxy = Server::here("proxy");
    let world = World::with(Daemon::start(), Topology::around(pod));
    world.steer("http", "tcp:80", &proxy.destination());
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
    }
    (world, proxy)
}

#[test]
fn a_namespace_that_is_deleted_while_it_is_idle_dies() {
    let (world, _proxy) = steered(Netns::new());
    world.eventually_at_rest();
    let fds = {
        let other = Topology::new();
        let before = world.daemon.fds_at_rest();
        world.cli().json(&["attach", &other.pod.target(), "--match", "tcp:80", "--to", "original"]);
        let with_two = world.daemon.fds_at_rest();
        drop(other);
        assert!(with_two > before);
        before
    };
    eventually("the second is forgotten", FIGURE, || {
        let list = world.list();
        if list["namespaces"].as_array().unwrap().len() == 1 { Ok(()) } else { Err(list) }
    });
    world.daemon.eventually_has_fds(fds);
    assert_dies(&world);
}

#[test]
fn a_namespace_that_is_deleted_with_open_connections_dies_and_they_are_reset() {
    let (world, _proxy) = steered(Netns::new());
    let mut open: Vec<_> = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80)).0).into();
    let half_closed = world.open(at(POD_V4, 80)).0;
    half_closed.stream().shutdown(std::net::Shutdown::Write).unwrap();
    open.push(half_closed);
    assert_dies(&world);
    // They end, each: most by RST; one whose RST met the end of the device, when it next sends.
    drop(open);
}

#[test]
fn a_namespace_that_is_deleted_under_load_dies() {
    let (world, _proxy) = steered(Netns::new());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let stop = Stop(&done);
        for number in 0..4 {
            let (done, client) = (&done, &world.net.client);
            let to = at([POD_V4, POD_V6][number % 2], 80);
            scope.spawn(move || client.enter(|| load(to, done)));
        }
        let proxied = || world.pod()["connections"]["accepted"].as_u64().unwrap();
        eventually("there is load", FIGURE, || match proxied() {
            100.. => Ok(()),
            few => Err(few),
        });
        assert_dies(&world);
        drop(stop);
    });
}

/// Connects, sends and receives until it is told to stop. What becomes of each connection does not matter.
fn load(to: std::net::SocketAddr, done: &AtomicBool) {
    const SHORT: Option<Duration> = Some(Duration::from_millis(200));
    while !done.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, SHORT.unwrap()) else { continue };
        stream.set_read_timeout(SHORT).unwrap();
        stream.set_write_timeout(SHORT).unwrap();
        for _ in 0..20 {
            if stream.write_all(&[1; 10_000]).is_err() || stream.read(&mut [0; 10_000]).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_namespace_that_is_deleted_with_a_client_that_vanished_dies() {
    let (world, _proxy) = steered(Netns::new());
    let (conversation, _) = world.open(at(POD_V4, 80));
    // The echo of this never arrives: the client takes nothing more.
    conversation.stream().write_all(&[1; 100_000]).unwrap();
    world.net.client.ip("link set dev eth0 down");
    world.eventually("the echo is on its way", "/connections/bytes_out", |bytes| bytes.as_u64() > Some(1000));
    assert_dies(&world);
    drop(conversation);
}

#[test]
fn a_namespace_that_is_deleted_while_we_wait_for_a_last_acknowledgement_dies() {
    let (go, went) = mpsc::channel::<()>();
    let went = std::sync::Mutex::new(went);
    let world = World::new();
    let proxy =
        Server::start(Place::Here, "proxy", &[at([127, 0, 0, 1].into(), 0)], move |mut connection| {
            connection.read_exact(&mut [0]).expect_err("the client's FIN");
            went.lock().unwrap().recv_timeout(HANG).expect("the sign to begin");
            // Little enough for a send buffer: all is written, and nothing acknowledged.
            connection.write_all(&[2; 10_000]).expect("the server sends");
        });
    world.steer("http", "tcp:80", &proxy.destination());
    let (conversation, _) = world.open(at(POD_V4, 80));
    conversation.stream().shutdown(std::net::Shutdown::Write).unwrap();
    world.net.client.ip("link set dev eth0 down");
    go.send(()).unwrap();
    world.eventually("one connection lingers", "/connections/lingering", |lingering| *lingering == 1);
    assert_dies(&world);
    drop(conversation);
}

#[test]
fn a_namespace_that_is_deleted_after_detach_with_an_open_connection_dies() {
    let (world, _proxy) = steered(Netns::new());
    let (conversation, _) = world.open(at(POD_V4, 80));
    world.detach();
    assert_dies(&world);
    drop(conversation);
}

#[test]
fn a_namespace_with_connections_to_the_original_destination_dies() {
    let world = World::new();
    let app = Server::inside(&world.net.pod, "app", 80);
    world.steer("self", "tcp:80", "original");
    let (conversation, _) = world.open(at(POD_V4, 80));
    let target = world.target();
    world.net.pod.delete();
    // The application's process ends last.
    drop(app);
    assert_is_gone(&world, &target);
    drop(conversation);
}

#[test]
fn a_namespace_of_a_process_dies_with_the_process() {
    let (world, _proxy) = steered(Netns::of_process());
    let (conversation, _) = world.open(at(POD_V6, 80));
    assert_dies(&world);
    drop(conversation);
}

#[test]
fn a_namespace_that_loses_its_name_is_steered_as_long_as_a_process_is_in_it() {
    let pod = Netns::of_process();
    let named = pod.with_a_name();
    let proxy = Server::here("proxy");
    let world = World::with(Daemon::start(), Topology::around(pod));
    let cli = world.cli();
    cli.json(&["attach", &named.target(), "--match", "tcp:80", "--to", &proxy.destination()]);
    let (target, cookie) = (named.target(), world.net.pod.cookie());
    drop(named);
    // Time enough for a daemon that goes by names alone to give it up.
    at_intervals(100, || assert_eq!(world.answer(at(POD_V4, 80)), "proxy"));
    let list = world.list();
    assert_eq!(list["namespaces"][0]["target"], target, "it keeps the name it had: {list:#}");
    assert_eq!(list["namespaces"][0]["cookie"], cookie, "{list:#}");
    world.net.pod.delete();
    assert_is_gone(&world, &target);
}

/// Asserts that the pod is steered, and stays so for longer than a daemon takes that is wrong about it.
#[track_caller]
fn assert_stays_steered(world: &World) {
    at_intervals(150, || assert_eq!(world.answer(at(POD_V4, 80)), "proxy"));
}

#[test]
fn a_namespace_that_only_a_mount_elsewhere_keeps_is_steered_until_that_is_gone() {
    let dir = Dir::new();
    let file = dir.join("netns");
    std::fs::write(&file, "").unwrap();
    let (world, _proxy) = steered(Netns::of_process());
    let target = world.target();
    must(Command::new("mount").arg("--bind").args([world.net.pod.path(), &file]));
    world.net.pod.delete();
    assert_stays_steered(&world);
    must(Command::new("umount").arg(&file));
    assert_is_gone(&world, &target);
}

#[test]
fn a_namespace_that_only_a_mount_of_another_mount_namespace_keeps_is_steered_until_that_is_gone() {
    let dir = Dir::new();
    let file = dir.join("netns");
    std::fs::write(&file, "").unwrap();
    let (world, _proxy) = steered(Netns::of_process());
    let target = world.target();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", "mount --bind \"$0\" \"$1\" && exec cat"]);
    let holder = Holder::start(command.arg(world.net.pod.path()).arg(&file));
    world.net.pod.delete();
    assert_stays_steered(&world);
    drop(holder);
    assert_is_gone(&world, &target);
}

#[test]
fn a_namespace_that_only_a_thread_keeps_is_steered_until_that_ends() {
    let (world, _proxy) = steered(Netns::new());
    let target = world.target();
    let (entered, is_inside) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        // Dropped with whatever fails, and the thread ends.
        let end = end;
        let file = world.net.pod.open();
        scope.spawn(move || {
            redirector::netns::enter(file, move || {
                entered.send(()).expect("somebody waits");
                ended.recv().expect_err("nobody says anything");
            })
        });
        is_inside.recv_timeout(HANG).unwrap();
        world.net.pod.delete();
        assert_stays_steered(&world);
        drop(end);
    });
    assert_is_gone(&world, &target);
}

#[test]
fn a_daemon_that_does_not_see_the_host_takes_no_namespace_for_dead() {
    let proxy = Server::here("proxy");
    let world = World::with(Daemon::in_pid_namespace(), Topology::around(Netns::of_process()));
    let named = world.net.pod.with_a_name();
    // Of a process that it cannot see.
    let outcome = world.cli().run(&["attach", &world.target(), "--match", "tcp:80", "--to", "reject"]);
    assert!(error(&outcome, 1).contains(&world.target()), "{outcome}");
    let outcome = world.cli().run(&["attach", "self", "--match", "tcp:80", "--to", "reject"]);
    error(&outcome, 1);
    let target = named.target();
    world.cli().json(&["attach", &target, "--match", "tcp:80", "--to", &proxy.destination()]);
    // The process keeps it, which the daemon does not see either.
    drop(named);
    assert_stays_steered(&world);
    world.cli().json(&["detach", &target]);
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

#[test]
fn a_new_namespace_of_the_same_name_is_not_steered() {
    let (world, proxy) = steered(Netns::new());
    let name = world.net.pod.name().to_owned();
    let old = world.net.pod.cookie();
    assert_dies(&world);
    let again = Topology::around(Netns::named(&name));
    if Feature::NetnsCookie.is_here() {
        assert_ne!(again.pod.cookie(), old);
    }
    let _app = Server::inside(&again.pod, "app", 80);
    for pod in [POD_V4, POD_V6] {
        assert_eq!(answer(&again.client, at(pod, 80)), "app");
    }
    assert_eq!(world.list()["namespaces"], serde_json::json!([]));
    assert_eq!(proxy.accepted(), 2);
}

#[test]
fn a_name_that_is_given_to_another_namespace_at_once_is_not_steered() {
    // Without waiting: the daemon may still know the old one when the name is there again.
    let (world, _proxy) = steered(Netns::new());
    let name = world.net.pod.name().to_owned();
    world.net.pod.delete();
    let again = Topology::around(Netns::named(&name));
    let _app = Server::inside(&again.pod, "app", 80);
    assert_eq!(answer(&again.client, at(POD_V4, 80)), "app");
    eventually(
        "the old one is gone",
        FIGURE,
        || if world.net.is_joined() { Err(world.list()) } else { Ok(()) },
    );
    eventually("`list` does not have it", FIGURE, || {
        let list = world.list();
        if list["namespaces"] == serde_json::json!([]) { Ok(()) } else { Err(list) }
    });
    assert_eq!(answer(&again.client, at(POD_V4, 80)), "app");
    // And it can be steered by that name.
    let proxy = Server::here("new-proxy");
    world.cli().json(&["attach", &again.pod.target(), "--match", "tcp:80", "--to", &proxy.destination()]);
    assert_eq!(answer(&again.client, at(POD_V4, 80)), "new-proxy");
}

/// Ends a steered namespace and makes others until one has its inode. The kernel gives the lowest free number;
/// other tests make namespaces as well, and one of theirs may have got it.
fn one_with_the_same_inode() -> Option<(World, Server, Netns)> {
    // These keep lower ones for the other tests.
    let lower: Vec<_> = (0..40).map(|_| Netns::new()).collect();
    let (world, proxy) = steered(Netns::new());
    let (inode, cookie) = (world.net.pod.inode(), world.net.pod.cookie());
    drop(lower);
    assert_dies(&world);
    let mut others = Vec::new();
    for _ in 0..100 {
        let netns = Netns::new();
        if netns.inode() == inode {
            // Without cookies the new one cannot be told from the old one, and what must hold is the same: the old
            // one was given up before its inode could be another's.
            assert_eq!(netns.cookie() == cookie, !Feature::NetnsCookie.is_here());
            return Some((world, proxy, netns));
        }
        others.push(netns);
    }
    None
}

#[test]
fn a_new_namespace_with_the_same_inode_is_not_steered() {
    let found = (0..10).find_map(|_| one_with_the_same_inode());
    let (world, _proxy, same) = found.expect("an inode that is given again");
    let again = Topology::around(same);
    let _app = Server::inside(&again.pod, "app", 80);
    for pod in [POD_V4, POD_V6] {
        assert_eq!(answer(&again.client, at(pod, 80)), "app");
    }
    assert_eq!(world.list()["namespaces"], serde_json::json!([]));
    let outcome = world.cli().run(&["list", &again.pod.target()]);
    error(&outcome, 3);
}

#[test]
fn the_client_may_die_first() {
    let (world, _proxy) = steered(Netns::new());
    let conversation = Conversation::open(&world.net.client, at(POD_V4, 80)).unwrap();
    drop(conversation);
    world.net.client.delete();
    eventually("the pod's end of the pair is gone", FIGURE, || {
        let outcome = world.net.pod.run("ip", &["link", "show", "dev", "eth0"]);
        if outcome.status.success() { Err(outcome.stdout) } else { Ok(()) }
    });
    // A FIN that nobody is there to acknowledge any more is waited for 30 s.
    eventually("no connection is left", FIGURE * 2, || {
        let pod = world.pod();
        let left = ["/connections/active", "/connections/lingering"].map(|one| count(&pod, one));
        if left == [0, 0] { Ok(()) } else { Err(pod) }
    });
    assert_eq!(answer(&world.net.pod, at([127, 0, 0, 1].into(), 80)), "proxy");
}
