//! `redirector exec --listen-as`: programs that make their own listeners, and get those of the namespace.

use std::{net::TcpStream, process::Command};

use nix::sys::signal::{Signal, kill};
use redirector_tests::{
    cli::error,
    client::{Conversation, answer},
    exec::{Exec, PYTHON, Stage, assert_true_addresses},
    features::{Feature, Version},
    server::Server,
    topology::{POD_V4, POD_V6, at},
};

use super::exec::{assert_is_gone, failure};

const LISTENING: &str = include_str!("../programs/listening.py");

/// What scripts here have in common.
const PRELUDE: &str = "
import ctypes, errno, os, select, signal, socket, sys, threading, time
PORT = 18080
libc = ctypes.CDLL(None, use_errno=True)
def say(*words):
    os.write(1, (' '.join(map(str, words)) + '\\n').encode())
def bound(host='0.0.0.0', family=None, port=PORT):
    one = socket.socket(family or (socket.AF_INET6 if ':' in host else socket.AF_INET))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family is None and one.family == socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind((host, port))
    return one
def listen(one):
    try:
        one.listen()
        return 'listens'
    except OSError as error:
        return errno.errorcode[error.errno]
def accepts(one):
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
def wait():
    return sys.stdin.readline()
";

/// `exec --listen-as PORT` of a script.
#[track_caller]
fn script(stage: &Stage, options: &str, script: &str) -> Exec {
    let words = [PYTHON, "-c", &format!("{PRELUDE}{script}")];
    Exec::start(&mut stage.exec(&format!("--match tcp:80 --listen-as {PORT} {options}"), &words))
}

/// Where the programs think that they listen. No test looks there but to find nothing.
const PORT: &str = "18080";

/// `exec --listen-as PORT` of a program that listens as soon as it is told to.
#[track_caller]
fn start(stage: &Stage, options: &str, words: &[&str]) -> Exec {
    let script = stage.program("listening.py", LISTENING);
    let wait = "echo waiting; read line; exec \"$@\"";
    let words = [&["sh", "-c", wait, "sh", PYTHON, &script, "cmd", PORT], words].concat();
    let mut cmd =
        Exec::start(&mut stage.exec(&format!("--match tcp:80 --listen-as {PORT} {options}"), &words));
    cmd.expect_line("waiting");
    cmd
}

#[track_caller]
fn assert_serves(stage: &Stage) {
    for pod in [POD_V4, POD_V6] {
        let mut conversation = Conversation::open(&stage.net.client, at(pod, 80)).unwrap();
        let greeting = conversation.greeting().unwrap();
        assert_eq!(greeting.server, "cmd");
        assert_true_addresses(&greeting, conversation.stream().local_addr().unwrap(), at(pod, 80));
        conversation.echo("ping").unwrap();
        conversation.finish().unwrap();
    }
}

#[test]
fn a_program_that_makes_its_own_listeners_serves_the_namespace() {
    for stage in Stage::both() {
        let _app = Server::inside(&stage.net.pod, "app", 80);
        let before = stage.snapshot();
        for how in ["pair", "dual"] {
            let mut cmd = start(&stage, "", &[how]);
            // The rule is in force, and nobody listens yet.
            assert_eq!(stage.answers(), ["refused", "refused"]);
            cmd.tell("go");
            cmd.expect_line("ready");
            assert_serves(&stage);
            // Not where it thinks: it listens in the namespace and nowhere else.
            let here = at([127, 0, 0, 1].into(), PORT.parse().unwrap());
            assert_eq!(TcpStream::connect(here).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
            // What is not meant is left alone.
            cmd.tell("0");
            assert!(cmd.line().starts_with("listens on 127.0.0.1 "));
            cmd.close_stdin();
            assert_eq!(cmd.code(), 0);
            stage.assert_forgotten();
            assert_eq!(stage.answers(), ["app", "app"]);
            redirector_tests::snapshot::Snapshot::of(&stage.net.pod).assert_same_as(&before);
        }
    }
}

#[test]
fn until_it_listens_and_when_it_has_closed_on_unavailable_decides() {
    let stage = Stage::with_daemon();
    let _app = Server::inside(&stage.net.pod, "app", 80);
    let mut cmd = start(&stage, "--on-unavailable pass", &["pair"]);
    assert_eq!(stage.answers(), ["app", "app"]);
    cmd.tell("go");
    cmd.expect_line("ready");
    assert_eq!(stage.answers(), ["cmd", "cmd"]);
}

#[test]
fn its_listeners_are_not_to_be_reached_but_by_steering() {
    for how in ["pair", "dual"] {
        let stage = Stage::with_daemon();
        let mut cmd = start(&stage, "", &[how]);
        cmd.tell("go");
        cmd.expect_line("ready");
        let list = stage.daemon.as_ref().unwrap().cli().json(&["list"]);
        let listeners = list["namespaces"][0]["rules"][0]["lease"]["listeners"].as_array().unwrap();
        assert_eq!(listeners.len(), 2, "{list:#}");
        for (listener, family) in listeners.iter().zip(["ipv4", "ipv6"]) {
            assert_eq!(listener["family"], family, "{list:#}");
            assert_eq!(listener["healthy"], true, "{list:#}");
            let address: std::net::SocketAddr = listener["address"].as_str().unwrap().parse().unwrap();
            assert!(address.ip().to_canonical().is_loopback(), "{list:#}");
            for pod in [POD_V4, POD_V6] {
                assert_eq!(answer(&stage.net.client, at(pod, address.port())), "refused");
            }
            let inside = at(address.ip().to_canonical(), address.port());
            assert_eq!(answer(&stage.net.pod, inside), "refused", "{how}");
        }
    }
}

#[test]
fn a_program_of_another_user_serves() {
    for stage in Stage::both() {
        let mut cmd = start(&stage, "--user nobody", &["dual"]);
        cmd.tell("go");
        cmd.expect_line("ready");
        assert_serves(&stage);
    }
}

#[track_caller]
fn worker(line: &str) -> i32 {
    let pid = line.strip_prefix("worker ").unwrap_or_else(|| panic!("a worker says `{line}`"));
    pid.parse().unwrap()
}

#[test]
fn workers_with_listeners_of_their_own_share_the_traffic_and_the_death_of_one_never_stops_steering() {
    for stage in Stage::both() {
        for how in ["pair", "dual"] {
            let mut cmd = start(&stage, "", &[how, "3"]);
            cmd.tell("go");
            let mut workers: Vec<i32> = (0..3).map(|_| worker(&cmd.line())).collect();
            while let Some(worker) = workers.pop() {
                let names: Vec<_> =
                    workers.iter().chain([&worker]).map(|worker| format!("cmd-{worker}")).collect();
                let answers: Vec<_> = (0..20).flat_map(|_| stage.answers()).collect();
                assert!(answers.iter().all(|one| names.contains(one)), "{names:?}: {answers:?}");
                super::exec::kill_and_wait(worker);
            }
            assert_eq!(cmd.code(), 0);
            stage.assert_forgotten();
        }
    }
}

#[test]
fn without_its_rule_it_listens_nowhere() {
    let stage = Stage::with_daemon();
    let target = stage.net.pod.target();
    let mut cmd = start(&stage, "--name web", &["pair"]);
    stage.cli().json(&["detach", &target, "--rule", "web"]);
    cmd.tell("go");
    assert_eq!(cmd.code(), 1);
    cmd.expect_on_stderr("Cannot assign requested address");
    stage.assert_forgotten();
}

#[test]
fn without_its_daemon_it_listens_nowhere() {
    let mut stage = Stage::with_daemon();
    let mut cmd = start(&stage, "", &["pair"]);
    stage.daemon.as_mut().unwrap().kill();
    cmd.tell("go");
    assert_eq!(cmd.code(), 1);
    cmd.expect_on_stderr("Function not implemented");
}

#[test]
fn when_the_daemon_dies_what_it_serves_goes_on() {
    let mut stage = Stage::with_daemon();
    let _app = Server::inside(&stage.net.pod, "app", 80);
    let mut cmd = start(&stage, "", &["dual"]);
    cmd.tell("go");
    cmd.expect_line("ready");
    let mut open = Conversation::open(&stage.net.client, at(POD_V4, 80)).unwrap();
    open.greeting().unwrap();
    stage.daemon.as_mut().unwrap().kill();
    assert_eq!(stage.answers(), ["app", "app"]);
    open.echo("still there").unwrap();
    cmd.close_stdin();
    assert_eq!(cmd.code(), 0);
}

#[test]
fn when_the_namespace_dies_it_is_ended_whether_it_listens_or_not() {
    for stage in Stage::both() {
        let mut cmd = start(&stage, "", &["dual"]);
        cmd.tell("go");
        cmd.expect_line("ready");
        stage.net.pod.delete();
        assert_eq!(cmd.code(), 128 + 15);
        assert_is_gone(&stage);
    }
    for stage in Stage::both() {
        let mut cmd = start(&stage, "", &["dual"]);
        stage.net.pod.delete();
        assert_eq!(cmd.code(), 128 + 15);
        assert_is_gone(&stage);
    }
}

#[test]
fn a_program_that_is_killed_while_it_waits_for_an_answer_leaves_nothing() {
    let stage = Stage::with_daemon();
    let daemon = stage.daemon.as_ref().unwrap();
    let fds = daemon.fds_at_rest();
    for _ in 0..10 {
        let mut cmd = start(&stage, "", &["pair"]);
        // Stopped, the daemon cannot answer.
        daemon.signal(Signal::SIGSTOP);
        cmd.tell("go");
        redirector_tests::eventually::eventually("it waits", super::SECOND, || {
            let at = std::fs::read_to_string(format!("/proc/{}/syscall", cmd.pid())).unwrap();
            // listen(2), x86-64 and others.
            let number = nix::libc::SYS_listen.to_string();
            if at.split(' ').next() == Some(&*number) { Ok(()) } else { Err(at) }
        });
        kill(cmd.pid(), Signal::SIGKILL).unwrap();
        daemon.signal(Signal::SIGCONT);
        assert_eq!(cmd.code(), 128 + 9);
        stage.assert_forgotten();
    }
    daemon.eventually_has_fds(fds);
}

#[test]
fn what_goes_wrong_is_said() {
    for stage in Stage::both() {
        // It gets no listeners at the start, so nothing stands for them.
        let outcome = stage.run(&format!("--listen-as {PORT}"), &["echo", "{fd4}"]);
        assert!(failure(&outcome).contains("{fd4}"), "{outcome}");
        for port in ["0", "65536", "http"] {
            let outcome = stage.run(&format!("--listen-as {port}"), &["true"]);
            assert!(error(&outcome, 2).contains("--listen-as"), "{outcome}");
        }
        // The kernel asks one only.
        let inner = stage.exec(&format!("--match tcp:81 --listen-as {PORT}"), &["true"]);
        let inner: Vec<_> = std::iter::once(inner.get_program()).chain(inner.get_args()).collect();
        let inner: Vec<_> = inner.into_iter().map(|word| word.to_str().unwrap()).collect();
        let outcome = stage.run(&format!("--listen-as {PORT}"), &inner);
        assert!(failure(&outcome).contains("seccomp"), "{outcome}");
        stage.assert_forgotten();
    }
}

#[test]
fn without_the_right_to_be_asked_it_is_an_error() {
    let stage = Stage::with_daemon();
    let exec = stage.exec(&format!("--match tcp:80 --listen-as {PORT}"), &["true"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--"]);
    command.arg(exec.get_program()).args(exec.get_args());
    command.envs(exec.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = redirector_tests::command::run(&mut command);
    assert!(failure(&outcome).contains("seccomp"), "{outcome}");
    stage.assert_forgotten();
}

#[test]
fn a_daemon_that_cannot_see_the_program_refuses() {
    let daemon = redirector_tests::daemon::Daemon::in_pid_namespace();
    let stage = Stage { daemon: Some(daemon), ..Stage::alone() };
    let outcome = stage.run(&format!("--listen-as {PORT}"), &["true"]);
    assert!(failure(&outcome).contains("PID namespace"), "{outcome}");
    stage.assert_forgotten();
}

#[test]
fn a_thread_with_a_table_of_files_of_its_own_gets_a_listener_or_an_error() {
    let stage = Stage::with_daemon();
    let mut cmd = script(
        &stage,
        "",
        "
def alone():
    CLONE_FILES = 0x400
    assert libc.unshare(CLONE_FILES) == 0
    one = bound()
    result = listen(one)
    say(result if result != 'listens' else one.getsockname()[0])
threading.Thread(target=alone).start()
",
    );
    // Without a pidfd of the thread its own table cannot be looked into, and must not be guessed at.
    assert_eq!(cmd.line(), if Feature::ThreadPidfd.is_here() { "127.0.0.1" } else { "EADDRNOTAVAIL" });
    assert_eq!(cmd.code(), 0);
}

#[test]
fn io_uring_cannot_be_set_up() {
    let stage = Stage::with_daemon();
    let mut cmd = script(
        &stage,
        "",
        "
io_uring_setup = 425
parameters = ctypes.create_string_buffer(120)
say(libc.syscall(io_uring_setup, 1, parameters), errno.errorcode[ctypes.get_errno()])
",
    );
    assert_eq!(cmd.line(), "-1 EPERM");
    assert_eq!(cmd.code(), 0);
}

#[test]
fn signals_seldom_interrupt_listen() {
    let stage = Stage::with_daemon();
    let mut cmd = script(
        &stage,
        "",
        "
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
results = []
for _ in range(100):
    one = bound()
    results.append(listen(one))
    one.close()
signal.setitimer(signal.ITIMER_REAL, 0)
say(results.count('listens'), results.count('EINTR'))
",
    );
    let line = cmd.line();
    println!("listens and EINTR: {line}");
    let (listens, interrupted) = line.split_once(' ').unwrap();
    let (listens, interrupted): (u32, u32) = (listens.parse().unwrap(), interrupted.parse().unwrap());
    assert_eq!(listens + interrupted, 100, "{line}");
    // Making a listener takes longer than a signal takes to come. From Linux 5.19 on it is kept away when the daemon
    // has begun, as docs/hand-off.md says; before that nearly every call is interrupted.
    if Version::running() >= Version(5, 19) {
        assert!(listens >= 50, "{line}");
    }
    assert_eq!(cmd.code(), 0);
}

#[test]
fn a_socket_that_is_in_epoll_before_it_listens_is_refused_and_it_is_said_why() {
    let stage = Stage::with_log_read();
    let mut cmd = script(
        &stage,
        "",
        "
one = bound()
poll = select.epoll()
poll.register(one, select.EPOLLIN)
say(listen(one))
poll.unregister(one)
say(listen(one))
",
    );
    assert_eq!(cmd.line(), "EADDRNOTAVAIL");
    assert_eq!(cmd.line(), "listens");
    assert_eq!(cmd.code(), 0);
    redirector_tests::eventually::eventually("it is said why", super::SECOND, || {
        let log = stage.daemon.as_ref().unwrap().log();
        if log.iter().any(|line| line.contains("epoll")) { Ok(()) } else { Err(log) }
    });
}

#[test]
fn what_listens_already_listens_nowhere_new_when_the_rule_is_gone() {
    let stage = Stage::with_daemon();
    let target = stage.net.pod.target();
    for options in [&["detach", &target][..], &["detach", &target, "--rule", "web"]] {
        let mut cmd = script(
            &stage,
            "--name web",
            "
first = bound()
say(listen(first))
wait()
say(listen(bound()))
",
        );
        assert_eq!(cmd.line(), "listens");
        stage.cli().json(options);
        cmd.tell("go");
        assert_eq!(cmd.line(), "EADDRNOTAVAIL");
        assert_eq!(cmd.code(), 0);
        stage.assert_forgotten();
    }
}

#[test]
fn every_listener_that_it_got_is_shut_down_when_the_namespace_dies() {
    let stage = Stage::with_daemon();
    let mut cmd = script(
        &stage,
        "--kill-after 1h",
        "
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ours = [bound(), bound('::')]
say(*map(listen, ours))
say(*map(accepts, ours))
while any(map(accepts, ours)):
    time.sleep(0.01)
say('shut down')
",
    );
    assert_eq!(cmd.line(), "listens listens");
    assert_eq!(cmd.line(), "1 1");
    stage.net.pod.delete();
    assert_eq!(cmd.line(), "shut down");
    stage.assert_forgotten();
    assert_eq!(cmd.code(), 0);
    assert_is_gone(&stage);
}

#[test]
fn an_ipv6_socket_for_a_mapped_address_gets_ipv4_alone() {
    let stage = Stage::with_daemon();
    let mut cmd = script(
        &stage,
        "",
        "
one = bound('::ffff:127.0.0.1')
say(listen(one))
connection, peer = one.accept()
connection.sendall(f'mapped [{peer[0]}]:{peer[1]} [::]:0\\n'.encode())
while data := connection.recv(65536): connection.sendall(data)
connection.close()
wait()
",
    );
    assert_eq!(cmd.line(), "listens");
    assert_eq!(answer(&stage.net.client, at(POD_V6, 80)), "refused");
    assert_eq!(answer(&stage.net.client, at(POD_V4, 80)), "mapped");
    cmd.close_stdin();
    assert_eq!(cmd.code(), 0);
}

#[test]
fn another_namespace_that_it_enters_is_not_meant() {
    let stage = Stage::with_daemon();
    let name = stage.net.client.name();
    let inner = format!("{PRELUDE}one = bound()\nsay(listen(one), one.getsockname()[0])");
    let words = ["ip", "netns", "exec", &name, PYTHON, "-c", &inner];
    let mut cmd = Exec::start(&mut stage.exec(&format!("--match tcp:80 --listen-as {PORT}"), &words));
    assert_eq!(cmd.line(), "listens 0.0.0.0");
    assert_eq!(cmd.code(), 0);
}

#[test]
fn who_is_sent_a_listener_by_another_user_is_not_ended_when_the_namespace_dies() {
    let stage = Stage::with_daemon();
    let path = stage.dir.join("sink");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::set_permissions(stage.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let send = format!(
        "{PRELUDE}
sink = socket.socket(socket.AF_UNIX)
sink.connect('{}')
socket.send_fds(sink, [b'x'], [3])
say('sent')
wait()
",
        path.display()
    );
    let options = "--match tcp:80 --user nobody --kill-after 300ms";
    let mut cmd = Exec::start(&mut stage.exec(options, &[PYTHON, "-c", &send]));
    cmd.expect_line("sent");
    // A program of root's that keeps what it is sent.
    let holder = format!(
        "{PRELUDE}
data, fds, _, _ = socket.recv_fds(socket.socket(fileno=0), 1, 1)
say('holds', len(fds))
time.sleep(1000)
"
    );
    let (stream, _) = listener.accept().unwrap();
    let mut command = Command::new(PYTHON);
    command.args(["-c", &holder]).stdin(std::os::fd::OwnedFd::from(stream));
    command.stdout(std::process::Stdio::piped());
    let mut victim = command.spawn().unwrap();
    let mut said = String::new();
    let stdout = victim.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).unwrap();
    assert_eq!(said, "holds 1\n");
    stage.net.pod.delete();
    assert_eq!(cmd.code(), 128 + 15);
    stage.assert_forgotten();
    assert!(victim.try_wait().unwrap().is_none(), "it was ended");
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert_is_gone(&stage);
}
