//! Defects that were found in tubular, and must not be here.

use std::{fs, os::fd::AsFd as _, process::Command, sync::mpsc, thread};

use nix::sys::signal::Signal;
use redirector::kernel::attached_programs;
use redirector_tests::{
    cli::{document, error},
    client::answer,
    command::{Outcome, must},
    daemon::{Daemon, binary},
    eventually::eventually,
    exec::{ACTIVATED, Exec, PYTHON},
    netns::Netns,
    server::{Place, Server, echo},
    snapshot::Snapshot,
    topology::{POD_V4, POD_V6, Topology, at},
    world::{World, count},
};
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::{LOOPBACK_V4, LOOPBACK_V6, names, try_attach};
use crate::SECOND;

/// D2: an IPv6 prefix around ::ffff:0:0/96 takes IPv4 with it there, and gives it to a socket that cannot have it.
#[test]
fn d2_ipv6_prefix_does_not_swallow_ipv4() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 8080);
    // One socket for both families: here IPv4 clients do come by mapped addresses.
    let dual = world.net.pod.enter(|| {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
        socket.set_only_v6(false).expect("IPV6_V6ONLY");
        socket.bind(&at("::".parse().expect("an address"), 8081).into()).expect("bind");
        socket.listen(16).expect("listen");
        socket
    });
    let _dual = Server::of(vec![dual], "dual", echo);
    let proxy = Server::here("proxy");
    // Whether ::1 and the pod's own address are in it.
    for (prefix, has_loopback, has_pod) in [
        ("::/0", true, true),
        ("::/1", true, false),
        ("::/64", true, false),
        ("::/80", true, false),
        ("::/90", true, false),
        ("::/95", true, false),
        ("::fffe:0:0/95", false, false),
    ] {
        let rule = format!("--match tcp:[{prefix}]:8080-8081");
        for (options, to, steered) in [
            ("", "reject", "refused"),
            ("", &*proxy.destination(), "proxy"),
            ("--on-unavailable pass", &proxy.destination(), "proxy"),
        ] {
            world.attach(&format!("--name six {rule} {options} --to {to}"));
            for (port, own) in [(8080, "app"), (8081, "dual")] {
                let context = format!("{rule} to {to}, port {port}");
                assert_eq!(world.answer(at(POD_V4, port)), own, "{context}");
                assert_eq!(answer(&world.net.pod, at(LOOPBACK_V4, port)), own, "{context}");
                let expected = |is_in| if is_in { steered } else { own };
                assert_eq!(
                    answer(&world.net.pod, at(LOOPBACK_V6, port)),
                    expected(has_loopback),
                    "{context}"
                );
                assert_eq!(world.answer(at(POD_V6, port)), expected(has_pod), "{context}");
            }
        }
    }
    let pod = world.pod();
    assert_eq!(count(&pod, "/rules/0/counters/unavailable"), 0, "{pod:#}");
    world.detach();
    // Nor as a source, nor by an exception.
    world.attach("--name from --match tcp:8080 --from ::/0 --to reject");
    assert_eq!([POD_V4, POD_V6].map(|pod| world.answer(at(pod, 8080))), ["app", "refused"]);
    world.attach("--name from --match tcp:8080 --except tcp:[::/0]:8080 --to reject");
    assert_eq!([POD_V4, POD_V6].map(|pod| world.answer(at(pod, 8080))), ["refused", "app"]);
}

/// D3: there a number that is free again leads to whom it belonged to before. Here of rules.
#[test]
fn d3_reused_rule_index_misdirects_nobody() {
    let world = World::new();
    let servers = ["a", "b", "c", "again"].map(Server::here);
    let [a, b, c, again] = &servers;
    let detach = |name| world.cli().json(&["detach", &world.target(), "--rule", name]);
    world.steer("other", "tcp:79", "reject");
    for _ in 0..5 {
        world.steer("a", "tcp:80", &a.destination());
        world.steer("b", "tcp:81", &b.destination());
        let (mut open, _) = world.open(at(POD_V4, 80));
        assert_eq!(count(&world.rule("a"), "/counters/steered"), 1);
        detach("a");
        // In the place of `a`, which comes again elsewhere.
        world.steer("c", "tcp:82", &c.destination());
        world.steer("a", "tcp:80", &again.destination());
        for pod in [POD_V4, POD_V6] {
            let answers = [80, 81, 82, 83].map(|port| world.answer(at(pod, port)));
            assert_eq!(answers, ["again", "b", "c", "refused"]);
        }
        for name in ["a", "b", "c"] {
            assert_eq!(count(&world.rule(name), "/counters/steered"), 2, "{name}");
        }
        open.echo("still there").unwrap();
        open.finish().unwrap();
        for name in ["a", "b", "c"] {
            detach(name);
        }
    }
}

/// A server that has the listeners of the pod for this port.
fn exec(world: &World, port: u16, name: &str) -> Exec {
    let script = world.daemon.dir().join("activated.py");
    fs::write(&script, ACTIVATED).expect("write a program");
    let (target, matching, script) = (world.target(), format!("tcp:{port}"), script.display().to_string());
    let words = ["exec", &target, "--name", name, "--match", &matching, "--", PYTHON, &script, name];
    let mut exec = Exec::start(&mut world.cli().command(&words));
    exec.expect_line("ready");
    exec
}

#[track_caller]
fn eventually_has_rules(world: &World, expected: &[&str]) {
    eventually("the rules of the dead are gone", SECOND, || {
        let names = names(world);
        if names == expected { Ok(()) } else { Err(names) }
    });
}

/// D3 of hand-offs: the process dies, the next one gets its number, and it comes again.
#[test]
fn d3_reused_consumer_misdirects_nobody() {
    let world = World::new();
    world.steer("other", "tcp:79", "reject");
    for _ in 0..3 {
        let mut a = exec(&world, 80, "a");
        assert_eq!(world.answer(at(POD_V4, 80)), "a");
        a.end(Signal::SIGKILL);
        // Perhaps before the daemon has seen that it is dead.
        let mut b = exec(&world, 81, "b");
        eventually_has_rules(&world, &["b", "other"]);
        let again = exec(&world, 80, "again");
        for pod in [POD_V4, POD_V6] {
            assert_eq!([80, 81, 82].map(|port| world.answer(at(pod, port))), ["again", "b", "refused"]);
        }
        b.end(Signal::SIGKILL);
        let c = exec(&world, 82, "c");
        eventually_has_rules(&world, &["again", "c", "other"]);
        for pod in [POD_V4, POD_V6] {
            assert_eq!([80, 81, 82].map(|port| world.answer(at(pod, port))), ["again", "refused", "c"]);
        }
        drop((again, c));
        eventually_has_rules(&world, &["other"]);
    }
}

/// D10: there a list with a mistake in it stops half way, and the message has the padding of a C string.
#[test]
fn d10_a_bad_rule_leaves_everything_as_it_was() {
    const MATCHES: u16 = 64;
    let world = World::new();
    let _app = [2000, 2031, 2063].map(|port| Server::inside(&world.net.pod, "app", port));
    world.steer("foo", "tcp:80", "reject");
    let before = world.list();
    let good: Vec<_> = (2000..2000 + MATCHES).map(|port| format!("tcp:{port}")).collect();
    let mut lists = Vec::new();
    for place in [0, 31, 63] {
        for bad in ["tcp:0", "tcp:65536", "tcp:[::ffff:10.77.0.1]:80", "tcp:10.77.0.1/24:80", "tcp:2001"] {
            let mut list = good.clone();
            list[place] = bad.to_owned();
            lists.push((list, bad));
        }
    }
    // One too many.
    lists.push((good.iter().cloned().chain(["tcp:3000".to_owned()]).collect(), "64"));
    for (list, naming) in lists {
        let matches: String = list.iter().map(|one| format!(" --match {one}")).collect();
        for name in ["foo", "new"] {
            let outcome = try_attach(&world, &format!("--name {name} --to reject{matches}"));
            assert!(error(&outcome, 2).contains(naming), "{outcome}");
            assert!(outcome.stderr.trim_end().chars().all(|c| c == '\n' || !c.is_control()), "{outcome}");
            assert_eq!(world.list(), before, "changed by {list:?}");
        }
    }
    for pod in [POD_V4, POD_V6] {
        let answers = [2000, 2031, 2063, 80].map(|port| world.answer(at(pod, port)));
        assert_eq!(answers, ["app", "app", "app", "refused"]);
    }
    // Without the mistake all of it is in force.
    let matches: String = good.iter().map(|one| format!(" --match {one}")).collect();
    try_attach(&world, &format!("--name new --to reject{matches}")).success();
    assert_eq!([2000, 2031, 2063].map(|port| world.answer(at(POD_V4, port))), ["refused"; 3]);
}

/// Runs something as `ip netns exec` does: with a /sys of its own, in which there is no BPF file system.
fn ip_netns_exec(netns: &Netns, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", &netns.name()]).arg(command.get_program()).args(command.get_args());
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inside
}

/// D12: there no command works by `ip netns exec`, because what it needs is pinned in /sys. We need only a socket file.
#[test]
fn d12_attach_from_inside_ip_netns_exec() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let (pod, target) = (&world.net.pod, world.target());
    let run = |netns: &Netns, words: &[&str]| -> Outcome {
        must(&mut ip_netns_exec(netns, &world.cli().command(words)))
    };
    let mounts = must(&mut ip_netns_exec(pod, Command::new("cat").arg("/proc/self/mounts"))).stdout;
    assert!(!mounts.lines().any(|line| line.split(' ').nth(2) == Some("bpf")), "{mounts}");
    for (netns, target) in [(pod, "self"), (pod, &*target), (&world.net.client, &target)] {
        let to = proxy.destination();
        run(netns, &["attach", target, "--name", "http", "--match", "tcp:80", "--to", &to]);
        for pod in [POD_V4, POD_V6] {
            assert_eq!(world.answer(at(pod, 80)), "proxy");
        }
        let list = document(&run(netns, &["list", target, "--json"]));
        assert_eq!(list["namespaces"][0]["cookie"], pod.cookie(), "{list:#}");
        run(netns, &["detach", target]);
        assert_eq!(world.answer(at(POD_V4, 80)), "refused");
    }
    let script = world.daemon.dir().join("activated.py");
    fs::write(&script, ACTIVATED).expect("write a program");
    let words = ["exec", "self", "--match", "tcp:80", "--", PYTHON, script.to_str().expect("UTF-8"), "cmd"];
    let mut cmd = Exec::start(&mut ip_netns_exec(pod, &world.cli().command(&words)));
    cmd.expect_line("ready");
    assert_eq!(world.answer(at(POD_V4, 80)), "cmd");
}

/// D12 of the daemon itself: it steers other namespaces from there too.
#[test]
fn d12_a_daemon_inside_ip_netns_exec() {
    let net = Topology::new();
    let mut command = ip_netns_exec(&net.client, Command::new(binary()).arg("run"));
    let world = World::with(Daemon::spawn(&mut command, &[]), net);
    let proxy = Server::start(Place::In(&world.net.client), "proxy", &[at(LOOPBACK_V4, 0)], echo);
    world.steer("http", "tcp:80", &proxy.destination());
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
    }
    world.detach();
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

/// What the daemon has come to when it is killed, beside how many commands it has answered.
type Moment = (&'static str, fn(&World, usize) -> bool);

/// D13 (and D5): there, to be killed between two of its changes leaks a reference for ever, or a program that nobody
/// knows. Here each start finds the namespace as it was.
#[test]
fn d13_a_killed_daemon_leaks_nothing() {
    let (mut world, proxy) = (World::new(), Server::here("proxy"));
    let _app = Server::inside(&world.net.pod, "app", 80);
    let before = Snapshot::of(&world.net.pod);
    let programs = |world: &World| attached_programs(world.net.pod.open().as_fd()).expect("ask for programs");
    let moments: [Moment; 4] = [
        ("at once", |_, _| true),
        ("it has begun", |world, fds| world.daemon.fds().len() > fds + 1),
        ("it has maps and listeners", |world, fds| world.daemon.fds().len() > fds + 5),
        ("it has attached", |world, _| {
            !attached_programs(world.net.pod.open().as_fd()).expect("ask for programs").is_empty()
        }),
    ];
    for (round, (what, has_come)) in moments.into_iter().cycle().take(8).enumerate() {
        let fds = world.daemon.fds_at_rest();
        let (sender, answered) = mpsc::channel();
        let (cli, target, to) = (world.cli(), world.target(), proxy.destination());
        let attacher = thread::spawn(move || {
            let commands: [&[&str]; 4] = [
                &["attach", &target, "--name", "http", "--match", "tcp:80", "--to", &to],
                &["attach", &target, "--name", "more", "--match", "tcp:81", "--to", "drop"],
                &["attach", &target, "--name", "http", "--match", "tcp:80,82", "--to", &to],
                &["detach", &target],
            ];
            let mut outcomes = commands.into_iter().cycle().map(|words| cli.run(words));
            outcomes.find(|outcome| sender.send(()).is_err() || !outcome.status.success())
        });
        for _ in 0..round {
            answered.recv_timeout(redirector_tests::HANG).expect("an answer");
        }
        while !has_come(&world, fds) {
            assert!(!attacher.is_finished(), "must not fail before the daemon is killed");
            thread::yield_now();
        }
        world.daemon.kill();
        println!("round {round}: killed when {what}");
        let outcome = attacher.join().unwrap().expect("it ends by a failure");
        assert!([1, 4].contains(&outcome.code()), "{outcome}");
        Snapshot::of(&world.net.pod).assert_same_as(&before);
        assert_eq!(world.answer(at(POD_V4, 80)), "app");

        world.daemon = Daemon::start();
        let answer = world.steer("http", "tcp:80", &proxy.destination());
        assert_eq!((&answer["result"], &answer["foreign_programs"]), (&json!("attached"), &json!([])));
        assert_eq!(programs(&world).len(), 1);
        assert_eq!(world.answer(at(POD_V6, 80)), "proxy");
        world.detach();
    }
    Snapshot::of(&world.net.pod).assert_same_as(&before);
}
