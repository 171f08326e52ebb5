//! A rule goes on with whoever holds its listeners when the program that got them has ended; which listeners a program gets; and
//! what is said where a program has none.

use std::{
    fs, io::Read as _, net::TcpStream, os::unix::net::UnixListener, process::Command,
    sync::atomic::AtomicBool, thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use redirector_tests::{
    HANG,
    cli::error,
    client::{Conversation, Stop, answer},
    eventually::{at_intervals, eventually},
    exec::{ACTIVATED, Exec, PYTHON, Stage, assert_true_addresses, sockets_of},
    server::{Server, echo},
    topology::{POD_V4, POD_V6, at},
    world::World,
};
use serde_json::{Value, json};
use socket2::Socket;

use super::{SECOND, exec::kill_and_wait};

const SUCCESSOR: &str = include_str!("../programs/successor.py");

/// `exec` of a program that leaves its listeners to a server called `next`, in one of its ways.
#[track_caller]
fn successor(stage: &Stage, options: &str, how: &str) -> Exec {
    let script = stage.program("successor.py", SUCCESSOR);
    let server = stage.program("activated.py", ACTIVATED);
    let words = [PYTHON, &script, how, PYTHON, &server, "next"];
    Exec::start(&mut stage.exec(&format!("--match tcp:80 --name web {options}"), &words))
}

/// The number that it says.
#[track_caller]
fn number(cmd: &Exec) -> i32 {
    let line = cmd.line();
    line.parse().unwrap_or_else(|_| panic!("a number: {line}; {:#?}", cmd.stderr()))
}

/// The rule `web`, or null.
fn web(stage: &Stage) -> Value {
    let list = stage.cli().json(&["list"]);
    let rules = list["namespaces"][0]["rules"].as_array();
    rules.and_then(|rules| rules.iter().find(|rule| rule["name"] == "web")).cloned().unwrap_or_default()
}

/// Waits until the rule `web` has as many listeners that are well, of IPv4 and of IPv6.
#[track_caller]
fn eventually_healthy(stage: &Stage, healthy: [bool; 2]) -> Value {
    eventually(&format!("listeners are well: {healthy:?}"), SECOND * 2, || {
        let rule = web(stage);
        let now: Vec<_> = rule["lease"]["listeners"].as_array().into_iter().flatten().collect();
        let is_so = now.iter().zip(healthy).all(|(one, healthy)| one["healthy"] == healthy);
        if is_so && now.len() == 2 { Ok(rule) } else { Err(rule) }
    })
}

fn process(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// A connection that nobody need accept.
#[track_caller]
fn connect(stage: &Stage, pod: std::net::IpAddr) -> TcpStream {
    let stream = stage.net.client.enter(|| TcpStream::connect_timeout(&at(pod, 80), HANG)).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream
}

/// The name in the greeting that comes.
#[track_caller]
fn greeted(stream: TcpStream) -> String {
    Conversation::with(stream).unwrap().greeting().unwrap().server
}

#[test]
fn a_server_that_cmd_leaves_in_the_background_gets_the_traffic_for_as_long_as_it_holds_the_listeners() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        for how in ["fork", "daemon"] {
            let mut cmd = successor(&stage, "--accept-within 1s", how);
            let server = number(&cmd);
            cmd.expect_line("ready");
            cmd.expect_on_stderr(&format!("process {server} holds its listeners"));
            if stage.daemon.is_some() {
                assert_eq!(cmd.code(), 7);
                let rule = web(&stage);
                assert_eq!(rule["lease"]["holders"], json!([server]), "{rule:#}");
                let text = stage.cli().run(&["list"]).success().stdout;
                let line = format!("web: its program has ended, and process {server} holds its listeners");
                assert!(text.contains(&line), "{text}");
            }
            for pod in [POD_V4, POD_V6] {
                let mut conversation = Conversation::open(&stage.net.client, at(pod, 80)).unwrap();
                let greeting = conversation.greeting().unwrap();
                assert_eq!(greeting.server, "next");
                assert_true_addresses(&greeting, conversation.stream().local_addr().unwrap(), at(pod, 80));
            }
            cmd.close_stdin();
            // Without a daemon it has stayed until now.
            assert_eq!(cmd.code(), 7);
            stage.eventually_answers("app");
            stage.assert_forgotten();
        }
    }
}

#[test]
fn a_shell_that_ends_before_its_pipeline_leaves_the_rule_to_that() {
    for stage in Stage::both() {
        let server = stage.program("activated.py", ACTIVATED);
        let script = "exec 9<&0; sh -c 'export LISTEN_PID=$$; exec \"$@\"' sh \"$@\" <&9 & exit 3";
        let words = ["sh", "-c", script, "sh", PYTHON, &server, "next"];
        let mut cmd = Exec::start(&mut stage.exec("--match tcp:80 --accept-within 1s", &words));
        cmd.expect_line("ready");
        cmd.expect_on_stderr("holds its listeners");
        assert_eq!(stage.answers(), ["next", "next"]);
        cmd.close_stdin();
        assert_eq!(cmd.code(), 3);
        stage.assert_forgotten();
    }
}

#[test]
fn a_program_that_is_upgraded_is_succeeded_without_a_connection_that_is_refused() {
    for stage in Stage::both() {
        let mut cmd = successor(&stage, "--accept-within 1s", "upgrade");
        cmd.expect_line("serving");
        assert_eq!(stage.answers(), ["old", "old"]);
        cmd.signal(Signal::SIGUSR2);
        let new = number(&cmd);
        cmd.expect_line("ready");
        let done = AtomicBool::new(false);
        let answers = thread::scope(|scope| {
            let stop = Stop(&done);
            let client = &stage.net.client;
            let asking = scope.spawn(|| {
                let mut answers = Vec::new();
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    answers.extend([POD_V4, POD_V6].map(|pod| answer(client, at(pod, 80))));
                }
                answers
            });
            cmd.signal(Signal::SIGTERM);
            cmd.expect_on_stderr(&format!("process {new} holds its listeners"));
            assert_eq!(stage.answers(), ["next", "next"]);
            drop(stop);
            asking.join().unwrap()
        });
        // One that the old one had accepted ends with it.
        let allowed = ["old", "next", "reset", "closed"];
        assert!(answers.iter().all(|one| allowed.contains(&&**one)), "{answers:?}");
        cmd.close_stdin();
        assert_eq!(cmd.code(), 7);
        stage.assert_forgotten();
    }
}

#[test]
fn listeners_that_are_on_their_way_in_a_message_keep_the_rule() {
    let stage = Stage::with_daemon();
    let path = stage.dir.join("sink");
    let sink = UnixListener::bind(&path).unwrap();
    let script = format!(
        "
import os, socket
sink = socket.socket(socket.AF_UNIX)
sink.connect('{}')
socket.send_fds(sink, [b'x'], [3, 4])
os._exit(7)
",
        path.display()
    );
    let options = "--match tcp:80 --name web --accept-within 1s";
    let mut cmd = Exec::start(&mut stage.exec(options, &[PYTHON, "-c", &script]));
    assert_eq!(cmd.code(), 7);
    cmd.expect_on_stderr("somebody whom redirector does not see holds its listeners");
    let waiting = [POD_V4, POD_V6].map(|pod| connect(&stage, pod));
    assert_eq!(web(&stage)["lease"]["holders"], json!([]));
    let (connection, _) = sink.accept().unwrap();
    let received = redirector::sys::socket::receive_with_fds(&connection, &mut [0]).unwrap();
    let next = Server::of(received.fds.into_iter().map(Socket::from).collect(), "next", echo);
    // Whether or not they have been out of their slots meanwhile.
    for stream in waiting {
        assert_eq!(greeted(stream), "next");
    }
    eventually_healthy(&stage, [true, true]);
    assert_eq!(stage.answers(), ["next", "next"]);
    eventually("it is seen who holds them", SECOND * 2, || {
        let holders = web(&stage)["lease"]["holders"].clone();
        if holders == json!([std::process::id()]) { Ok(()) } else { Err(holders) }
    });
    drop(next);
    stage.assert_forgotten();
}

#[test]
fn a_program_that_asked_by_itself_leaves_its_rule_to_its_child_unless_it_has_said_otherwise() {
    let world = World::new();
    let handoff = world.daemon.socket().with_file_name("handoff.sock");
    fs::write(world.daemon.dir().join("lease.py"), include_str!("../../docs/examples/lease.py")).unwrap();
    let script = "
import json, lease, os, sys
request = {'target': sys.argv[2], 'match': ['tcp:80'], 'name': 'web', 'accept_within': '1s'}
answer, listeners = lease.lease(sys.argv[1], request | json.loads(sys.argv[3]))
if os.fork():
    os._exit(0)
os.write(1, b'%d\\n' % os.getpid())
sys.stdin.read()
";
    for (more, goes_on) in [("{}", true), (r#"{"end_with_process": true}"#, false)] {
        let mut command = Command::new(PYTHON);
        command.args(["-c", script]).arg(&handoff).args([&world.target(), more]);
        command.env("PYTHONPATH", world.daemon.dir().path()).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut cmd = Exec::start(&mut command);
        let child = number(&cmd);
        assert_eq!(cmd.code(), 0);
        if goes_on {
            let holders = |list: &Value| list["namespaces"][0]["rules"][0]["lease"]["holders"].clone();
            eventually("the child holds them", SECOND, || {
                let list = world.list();
                if holders(&list) == json!([child]) { Ok(()) } else { Err(list) }
            });
            cmd.close_stdin();
        }
        eventually("nothing is steered", SECOND * 2, || {
            let list = world.list();
            if list["namespaces"] == json!([]) { Ok(()) } else { Err(list) }
        });
        if !goes_on {
            assert_eq!(sockets_of(child).len(), 2, "it holds both");
        }
    }
}

#[test]
fn a_child_that_holds_the_listeners_and_never_accepts_is_no_black_hole_and_gets_the_traffic_when_it_accepts()
{
    let stage = Stage::with_daemon();
    let _app = Server::inside(&stage.net.pod, "app", 80);
    for (option, meanwhile) in [("reject", "refused"), ("pass", "app")] {
        let options = format!("--accept-within 300ms --on-unavailable {option}");
        let mut cmd = successor(&stage, &options, "wait");
        let child = number(&cmd);
        cmd.expect_on_stderr(&format!("process {child} holds"));
        assert_eq!(cmd.code(), 7);
        // Nobody has to be waited for: nobody waits.
        at_intervals(30, || assert_eq!(web(&stage)["lease"]["listeners"][0]["healthy"], true));
        let waiting = [POD_V4, POD_V6].map(|pod| connect(&stage, pod));
        let rule = eventually_healthy(&stage, [false, false]);
        let why = rule["lease"]["listeners"][0]["why"].as_str().unwrap();
        assert_eq!(why, "nobody accepts from it: 1 connection waits", "{rule:#}");
        let text = stage.cli().run(&["list"]).success().stdout;
        assert!(text.contains(&format!("{why}; on_unavailable ({option}) decides")), "{text}");
        assert_eq!(stage.answers(), [meanwhile, meanwhile]);
        cmd.tell("accept");
        cmd.expect_line("ready");
        for stream in waiting {
            assert_eq!(greeted(stream), "next");
        }
        eventually_healthy(&stage, [true, true]);
        assert_eq!(stage.answers(), ["next", "next"]);
        cmd.close_stdin();
        stage.assert_forgotten();
    }
}

#[test]
fn a_successor_that_stands_still_is_unavailable_for_that_time_only() {
    let stage = Stage::with_daemon();
    let mut cmd = successor(&stage, "--accept-within 300ms", "fork");
    let server = number(&cmd);
    cmd.expect_line("ready");
    cmd.expect_on_stderr("holds its listeners");
    process(server, Signal::SIGSTOP);
    // Of IPv4 alone: whoever is not waited for is not unavailable.
    let waiting = connect(&stage, POD_V4);
    eventually_healthy(&stage, [false, true]);
    assert_eq!(answer(&stage.net.client, at(POD_V4, 80)), "refused");
    let other = connect(&stage, POD_V6);
    process(server, Signal::SIGCONT);
    assert_eq!([waiting, other].map(greeted), ["next", "next"]);
    eventually_healthy(&stage, [true, true]);
    assert_eq!(stage.answers(), ["next", "next"]);
    cmd.close_stdin();
    stage.assert_forgotten();
}

#[test]
fn a_successor_that_accepts_slowly_is_not_unavailable_however_many_wait() {
    let stage = Stage::with_daemon();
    let script = "
import os, socket, sys
one = socket.socket(fileno=3)
one.setblocking(True)
if os.fork():
    os._exit(7)
os.write(1, b'child\\n')
for line in sys.stdin:
    connection, _ = one.accept()
    connection.close()
    os.write(1, b'accepted\\n')
";
    let options = "--match tcp:80 --name web --accept-within 300ms";
    let mut cmd = Exec::start(&mut stage.exec(options, &[PYTHON, "-c", script]));
    cmd.expect_line("child");
    cmd.expect_on_stderr("holds its listeners");
    let mut waiting: Vec<_> = (0..3).map(|_| connect(&stage, POD_V4)).collect();
    // As many come as are accepted, so that the queue is always as long.
    at_intervals(60, || {
        cmd.tell("accept");
        cmd.expect_line("accepted");
        let mut first = waiting.remove(0);
        assert_eq!(first.read(&mut [0]).unwrap(), 0);
        waiting.push(connect(&stage, POD_V4));
        let rule = web(&stage);
        assert_eq!(rule["lease"]["listeners"][0]["healthy"], true, "{rule:#}");
    });
    // And no longer accepted from, it is unavailable.
    eventually_healthy(&stage, [false, true]);
    cmd.close_stdin();
    stage.assert_forgotten();
}

#[test]
fn with_end_with_cmd_the_rule_ends_although_others_hold_the_listeners() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        let mut cmd = successor(&stage, "--end-with-cmd", "fork");
        let server = number(&cmd);
        assert_eq!(cmd.code(), 7);
        stage.eventually_answers("app");
        stage.assert_forgotten();
        kill_and_wait(server);
    }
}

#[test]
fn a_rule_that_goes_on_without_cmd_can_be_detached() {
    let stage = Stage::with_daemon();
    let _app = Server::inside(&stage.net.pod, "app", 80);
    let cmd = successor(&stage, "--accept-within 1s", "fork");
    let _server = number(&cmd);
    cmd.expect_on_stderr("holds its listeners");
    stage.cli().json(&["detach", &stage.net.pod.target(), "--rule", "web"]);
    assert_eq!(stage.answers(), ["app", "app"]);
    stage.assert_forgotten();
}

#[test]
fn a_cmd_that_leaves_processes_without_listeners_behind_is_told_so() {
    for stage in Stage::both() {
        let script = stage.program("successor.py", SUCCESSOR);
        let closes = ["sh", "-c", "exec 3<&- 4<&-; exec cat"];
        let cases: [(&str, Vec<&str>); 3] = [
            ("", ["sh", "-c", "exec 9<&0; cat <&9 3<&- 4<&- & exit 0"].to_vec()),
            ("", [&[PYTHON, &script, "daemon"], &closes[..]].concat()),
            // It would listen when it is in the background, and finds that the rule is gone.
            ("--listen-as 18080", [PYTHON, &script, "wait", "true"].to_vec()),
        ];
        for (options, words) in cases {
            let mut cmd = Exec::start(&mut stage.exec(&format!("--match tcp:80 {options}"), &words));
            assert_eq!(cmd.code(), if words[0] == "sh" { 0 } else { 7 });
            cmd.expect_on_stderr("CMD has ended and left 1 process behind, without listeners");
            cmd.expect_on_stderr("daemon off;");
            cmd.close_stdin();
            stage.assert_forgotten();
        }
        // Nobody is left behind.
        let outcome = stage.run("", &["sh", "-c", "cat /dev/null & wait"]);
        assert_eq!((outcome.code(), &*outcome.stderr), (0, ""), "{outcome}");
    }
}

/// What `exec` gives a program that gets these listeners.
#[track_caller]
fn shape(stage: &Stage, listeners: &str) -> Vec<String> {
    let script = "echo $LISTEN_FDS; echo $LISTEN_FDNAMES; echo $1";
    let placeholders = match listeners {
        "v4" => "{fd4} {listen4} {port}",
        "both" => "{fd4} {fd6} {port}",
        _ => "{fd6} {listen6} {port}",
    };
    let options = format!("--name web --listeners {listeners}");
    let outcome = stage.run(&options, &["sh", "-c", script, "sh", placeholders]).success();
    outcome.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_program_gets_the_listeners_that_it_wants() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        let target = stage.net.pod.target().replace(':', "=");
        for (listeners, families, count, expected) in [
            ("both", &["ipv4", "ipv6"][..], "2", ["next", "next"]),
            ("v4", &["ipv4"], "1", ["next", "app"]),
            ("v6", &["ipv6"], "1", ["app", "next"]),
            ("dual", &["dual"], "1", ["next", "next"]),
            // As HAProxy and others say.
            ("ipv4", &["ipv4"], "1", ["next", "app"]),
            ("v4v6", &["dual"], "1", ["next", "next"]),
        ] {
            let lines = if listeners == "ipv4" { shape(&stage, "v4") } else { shape(&stage, listeners) };
            let names: Vec<_> = families.iter().map(|family| format!("{target}/web/{family}")).collect();
            assert_eq!(lines[..2], [count.to_owned(), names.join(":")], "{listeners}");
            let placeholders: Vec<_> = lines[2].split(' ').collect();
            assert_eq!(placeholders[0], "3", "{listeners}: {lines:?}");
            if families == ["dual"] {
                assert!(placeholders[1].starts_with("[::ffff:127.0.0.1]:"), "{listeners}: {lines:?}");
            }
            stage.assert_forgotten();
            let options = format!("--name web --on-unavailable pass --listeners {listeners}");
            let mut cmd = stage.serve(&options, "next");
            assert_eq!(stage.answers(), expected, "{listeners}");
            for (pod, _) in [POD_V4, POD_V6].into_iter().zip(expected).filter(|(_, name)| *name == "next") {
                let mut conversation = Conversation::open(&stage.net.client, at(pod, 80)).unwrap();
                let greeting = conversation.greeting().unwrap();
                let canonical = |address: Option<std::net::SocketAddr>| {
                    address.map(|address| at(address.ip().to_canonical(), address.port()))
                };
                assert_eq!(canonical(greeting.local), Some(at(pod, 80)), "{listeners}");
                assert_eq!(canonical(greeting.peer), Some(conversation.stream().local_addr().unwrap()));
            }
            if stage.daemon.is_some() {
                let rule = web(&stage);
                let families = rule["lease"]["listeners"].as_array().unwrap().len();
                assert_eq!(
                    families,
                    if ["v4", "v6", "ipv4"].contains(&listeners) { 1 } else { 2 },
                    "{rule:#}"
                );
                assert_eq!(rule["lease"]["without"], Value::Null, "it has what it wants: {rule:#}");
            }
            cmd.close_stdin();
            assert_eq!(cmd.code(), 0);
            stage.assert_forgotten();
        }
    }
}

#[test]
fn what_does_not_go_together_is_wrong_usage() {
    let stage = Stage::alone();
    for (options, naming) in [
        ("--listeners all", "--listeners"),
        ("--listeners v4 --listen-as 80", "--listeners"),
        ("--listen-within 1s", "--listen-as"),
        ("--accept-within soon", "--accept-within"),
    ] {
        let outcome = stage.run(options, &["true"]);
        assert!(error(&outcome, 2).contains(naming), "{outcome}");
    }
    // A placeholder of a listener that it does not get.
    let outcome = stage.run("--listeners dual", &["echo", "{fd4}"]);
    assert!(super::exec::failure(&outcome).contains("--listeners"), "{outcome}");
}

#[test]
fn a_listener_that_a_program_has_closed_is_told_in_list() {
    for (script, families) in [
        ("exec 4<&-; echo ready; exec cat", &["ipv6"][..]),
        ("exec 3<&-; echo ready; exec cat", &["ipv4"]),
        ("exec 3<&- 4<&-; echo ready; exec cat", &["ipv4", "ipv6"]),
    ] {
        let stage = Stage::with_daemon();
        let mut cmd = Exec::start(&mut stage.exec("--match tcp:80 --name web", &["sh", "-c", script]));
        cmd.expect_line("ready");
        let rule = web(&stage);
        let text = stage.cli().run(&["list"]).success().stdout;
        for listener in rule["lease"]["listeners"].as_array().unwrap() {
            let family = listener["family"].as_str().unwrap();
            let is_closed = families.contains(&family);
            assert_eq!(listener["healthy"], !is_closed, "{rule:#}");
            let why = if is_closed { json!("its program has closed it") } else { Value::Null };
            assert_eq!(listener["why"], why, "{rule:#}");
            let line = format!(
                "web: listener {family} {}: its program has closed it",
                listener["address"].as_str().unwrap()
            );
            assert_eq!(text.contains(&line), is_closed, "{text}");
        }
        cmd.close_stdin();
        assert_eq!(cmd.code(), 0);
    }
}

/// Python that listens on a port when it is told to, for IPv4.
const LISTENS: &str = "
import socket, sys
for port in sys.argv[1:]:
    one = socket.create_server(('0.0.0.0', int(port)))
    # As nginx does, to set the length of its queue.
    one.listen(100)
    print('listens', flush=True)
sys.stdin.read()
";

#[test]
fn a_program_that_listens_for_one_family_only_is_told_in_list() {
    let stage = Stage::with_daemon();
    let words = [PYTHON, "-c", LISTENS, "18080"];
    let options = "--match tcp:80 --name web --listen-as 18080";
    let mut cmd = Exec::start(&mut stage.exec(options, &words));
    cmd.expect_line("listens");
    let rule = web(&stage);
    assert_eq!(rule["lease"]["without"], json!(["ipv6"]), "{rule:#}");
    let text = stage.cli().run(&["list"]).success().stdout;
    assert!(
        text.contains("web: its program does not listen for ipv6; on_unavailable (reject) decides"),
        "{text}"
    );
    cmd.close_stdin();
    assert_eq!(cmd.code(), 0);
}

#[test]
fn a_program_that_never_listens_on_its_port_is_told_where_it_does() {
    for stage in Stage::both() {
        for (ports, said) in [
            (&["18081"][..], "does not listen on port 18080 (`--listen-as`), but on 0.0.0.0:18081"),
            (
                &["18082", "18083"],
                "but on 0.0.0.0:18082, 0.0.0.0:18083, as without redirector: is `--listen-as 18082` meant?",
            ),
            (&[], "has not listened on port 18080 (`--listen-as`) yet"),
        ] {
            let words = [&[PYTHON, "-c", LISTENS], ports].concat();
            // As long as it takes Python to begin, or longer.
            let options = "--match tcp:80 --listen-as 18080 --listen-within 2s";
            let mut cmd = Exec::start(&mut stage.exec(options, &words));
            ports.iter().for_each(|_| drop(cmd.expect_line("listens")));
            cmd.expect_on_stderr(said);
            cmd.close_stdin();
            assert_eq!(cmd.code(), 0);
            stage.assert_forgotten();
        }
        // One that ends before that time.
        let words = [PYTHON, "-c", LISTENS, "18084"];
        let options = "--match tcp:80 --listen-as 18080 --listen-within 1h";
        let mut cmd = Exec::start(&mut stage.exec(options, &words));
        cmd.expect_line("listens");
        cmd.close_stdin();
        assert_eq!(cmd.code(), 0);
        cmd.expect_on_stderr("but on 0.0.0.0:18084");
    }
}

#[test]
fn a_program_that_listens_twice_on_what_it_got_is_not_told_that_it_listens_elsewhere() {
    let stage = Stage::with_log_read();
    let words = [PYTHON, "-c", LISTENS, "18080"];
    let mut cmd =
        Exec::start(&mut stage.exec("--match tcp:80 --listen-as 18080 --listen-within 100ms", &words));
    cmd.expect_line("listens");
    assert!(stage.net.client.enter(|| TcpStream::connect(at(POD_V4, 80)).is_ok()));
    cmd.close_stdin();
    assert_eq!(cmd.code(), 0);
    stage.assert_forgotten();
    let daemon = stage.daemon.as_ref().unwrap();
    let log = daemon.log();
    assert!(!log.iter().any(|line| line.contains("listens on another port")), "{log:#?}");
    assert_eq!(cmd.stderr(), [] as [&str; 0]);
}

#[test]
fn when_the_namespace_dies_who_holds_the_listeners_without_cmd_is_ended() {
    for stage in Stage::both() {
        let mut cmd = successor(&stage, "--accept-within 1s --kill-after 300ms", "fork");
        let server = number(&cmd);
        cmd.expect_on_stderr("holds its listeners");
        stage.net.pod.delete();
        assert_eq!(cmd.code(), 7);
        super::exec::assert_is_gone(&stage);
        assert_eq!(sockets_of(server).len(), 0, "it has ended");
    }
}

#[test]
fn without_a_daemon_a_signal_ends_the_rule_that_goes_on_without_cmd() {
    let stage = Stage::alone();
    let _app = Server::inside(&stage.net.pod, "app", 80);
    let mut cmd = successor(&stage, "--accept-within 1s", "fork");
    let server = number(&cmd);
    cmd.expect_on_stderr("holds its listeners");
    assert_eq!(cmd.end(Signal::SIGTERM), 7);
    stage.assert_forgotten();
    assert_eq!(stage.answers(), ["app", "app"]);
    kill_and_wait(server);
}
