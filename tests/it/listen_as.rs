//! `redirector exec --listen-as`: programs that make their own listeners, and get those of the namespace.

use std::{net::TcpStream, process::Command};

use nix::sys::signal::{Signal, kill};
use redirector_tests::{
    cli::error,
    client::{Conversation, answer},
    exec::{Exec, PYTHON, Stage, assert_true_addresses},
    server::Server,
    topology::{POD_V4, POD_V6, at},
};

use super::exec::{assert_is_gone, failure};

const LISTENING: &str = include_str!("../programs/listening.py");

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
