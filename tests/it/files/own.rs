//! The daemon's own file: `run --config`, and SIGHUP.

use std::{
    fs, iter,
    process::Command,
    sync::{Arc, Once, OnceLock},
};

use nix::sys::signal::{Signal, kill};
use redirector_tests::{
    command::run,
    daemon::{Daemon, binary},
    dir::Dir,
    eventually::eventually,
    exec::Exec,
    fake_engine::{ID, engine, json, version},
    netns::Netns,
    server::Server,
    topology::{POD_V4, Topology, at},
    world::World,
};
use serde_json::json;

use super::{export, file, namespace};
use crate::SECOND;

/// The lines of the log with all of these words, when there are some.
#[track_caller]
pub(super) fn logged(daemon: &Daemon, words: &[&str]) -> Vec<String> {
    eventually("it is in the log", SECOND, || {
        let lines = daemon.log_with(words);
        if lines.is_empty() { Err(daemon.log()) } else { Ok(lines) }
    })
}

/// The engine is asked about the file's container while the daemon starts, and does not answer before the signal is there.
#[test]
fn a_sighup_while_the_daemon_starts_is_not_lost() {
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    let rules = json!([{"name": "http", "match": ["tcp:80"], "to": ["reject"]}]);
    fs::write(&path, file(&[namespace("docker:web", &rules)])).unwrap();
    let daemon = Arc::new(OnceLock::new());
    let asked = Arc::clone(&daemon);
    let once = Once::new();
    engine(&dir.join("docker"), move |path| {
        once.call_once(|| kill(*asked.wait(), Signal::SIGHUP).expect("signal the daemon"));
        let state = r#"{"Status":"exited","Pid":0}"#;
        if path.ends_with("/version") {
            version()
        } else {
            json(&format!(r#"{{"Id":"{ID}","Name":"/web","State":{state}}}"#))
        }
    });
    let [docker, podman] = ["docker", "podman"].map(|kind| dir.join(kind));
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(binary()).arg("run");
    command.arg("--socket").arg(dir.join("control.sock")).arg("--config").arg(&path);
    command.arg("--docker-socket").arg(docker).arg("--podman-socket").arg(podman).env_remove("RUST_LOG");
    let exec = Exec::start(&mut command);
    daemon.set(exec.pid()).unwrap();
    let mut lines = iter::repeat_with(|| exec.line());
    assert!(lines.any(|line| line.contains(" ready ")), "it starts");
    assert!(lines.any(|line| line.contains("SIGHUP: the file is applied")), "and reads the file again");
}

#[test]
fn a_daemon_begins_with_its_file_and_applies_it_again_at_sighup() {
    let (net, one, two) = (Topology::new(), Server::here("one"), Server::here("two"));
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    let text = |to: &str| {
        file(&[namespace(&net.pod.target(), &json!([{"name": "http", "match": ["tcp:80"], "to": [to]}]))])
    };
    let write = |text: &str| fs::write(&path, text).unwrap();
    write(&text(&one.destination()));
    let daemon = Daemon::with_log_read(&["--config", path.to_str().unwrap()]);
    let world = World::with(daemon, net);
    // It is ready when the file is applied.
    assert_eq!(world.answer(at(POD_V4, 80)), "one");
    assert_eq!(world.rule("http")["origin"], "file");
    world.steer("mine", "tcp:81", &one.destination());
    let text = |to: &str| {
        file(&[namespace(&world.target(), &json!([{"name": "http", "match": ["tcp:80"], "to": [to]}]))])
    };
    write(&text(&two.destination()));
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["SIGHUP: the file is applied", "changes=1"]);
    assert_eq!(world.answer(at(POD_V4, 80)), "two");
    assert_eq!(world.answer(at(POD_V4, 81)), "one", "rules of `attach` stay");
    let before = export(&world);
    // What is wrong with it is in the log, and nothing is changed.
    write("[[namespace]]\ntarget = \"web\"\n[daemon]\nsocket = 1\n");
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["SIGHUP: nothing is changed", "problems=2"]);
    logged(&world.daemon, &["line=2", "column=10", "did you mean"]);
    write(&text("path:/etc/passwd/127.0.0.1:80"));
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["/etc/passwd", "not a network namespace", "line=3"]);
    fs::remove_file(&path).unwrap();
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["SIGHUP: nothing is changed", "No such file"]);
    assert_eq!(export(&world), before);
    // It may say otherwise how the daemon is set up; that is for the next start.
    write(&format!("[daemon]\nmax_connections = 7\n{}", text(&one.destination())));
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["needs a restart"]);
    eventually("the rule is changed", SECOND, || match &*world.answer(at(POD_V4, 80)) {
        "one" => Ok(()),
        other => Err(other.to_owned()),
    });
}

#[test]
fn without_a_file_sighup_changes_nothing() {
    let world = World::new();
    world.steer("mine", "tcp:80", "reject");
    world.daemon.signal(Signal::SIGHUP);
    logged(&world.daemon, &["SIGHUP", "--config"]);
    assert_eq!(world.rule("mine")["state"], "up");
}

#[test]
fn a_daemon_does_not_start_with_a_file_that_is_broken_or_cannot_be_applied() {
    let dir = Dir::new();
    let path = dir.join("redirector.toml");
    let there = Netns::new();
    let named = |target: &str, rule: &str| {
        let rules = json!([{"name": rule, "match": ["tcp:80"], "to": ["reject"]}]);
        let mut twin = namespace(&format!("path:{}", there.path().display()), &rules);
        twin["rule"][0]["to"] = json!(["drop"]);
        file(&[namespace(&there.target(), &rules), namespace(target, &rules), twin])
    };
    let other = "netns:rdt-none";
    for (text, code, part) in [
        ("[daemon]\nsockets = 1\n", 2, "redirector.toml:2:1: error: unknown key `sockets`"),
        // One target that is wrong, although another is there, and a third is missing.
        (&named("path:/etc/passwd", "a"), 1, "not a network namespace"),
        (&named("path:/proc/self/ns/mnt", "a"), 1, "not a network namespace"),
        (&named("path:/proc/self/ns/net", "a"), 1, "host's own network namespace"),
        // Two that are one namespace, and say different things.
        (&named(other, "a"), 1, "is the same namespace"),
    ] {
        fs::write(&path, text).unwrap();
        let socket = dir.join("control.sock");
        let mut command = Command::new(binary());
        command.args(["run", "--config", path.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
        let outcome = run(&mut command);
        assert_eq!(outcome.code(), code, "{outcome}");
        assert!(outcome.stderr.contains(part), "{outcome}");
        assert!(!socket.exists(), "the socket is gone{outcome}");
    }
}

#[test]
fn what_cannot_be_read_again_is_no_daemons_file() {
    let dir = Dir::new();
    let pipe = dir.join("pipe");
    redirector_tests::command::must(Command::new("mkfifo").arg(&pipe));
    for path in ["-", pipe.to_str().unwrap(), "/dev/null"] {
        let outcome = run(Command::new(binary()).args(["run", "--config", path]).current_dir(dir.path()));
        assert_eq!(outcome.code(), 2, "{outcome}");
        assert!(outcome.stderr.contains("read again"), "{outcome}");
    }
}

#[test]
fn a_daemon_whose_file_waits_for_an_engine_can_be_stopped() {
    let dir = Dir::new();
    let engine = dir.join("engine.sock");
    // It is connected to, and says nothing.
    let _silent = std::os::unix::net::UnixListener::bind(&engine).unwrap();
    let path = dir.join("redirector.toml");
    let text = file(&[namespace("docker:web", &json!([{"match": ["tcp:80"], "to": ["reject"]}]))]);
    fs::write(&path, format!("[daemon]\ndocker_socket = {engine:?}\n{text}")).unwrap();
    let socket = dir.join("control.sock");
    let mut command = Command::new(binary());
    command.args(["run", "--config", path.to_str().unwrap(), "--socket", socket.to_str().unwrap()]);
    let mut child = redirector_tests::command::spawn(&mut command);
    eventually("it serves", SECOND, || if socket.exists() { Ok(()) } else { Err(()) });
    nix::sys::signal::kill(redirector_tests::command::pid(&child), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(!socket.exists());
}

#[test]
fn the_file_says_how_the_daemon_is_set_up_and_the_command_line_goes_before_it() {
    let dir = Dir::new();
    let (path, other) = (dir.join("redirector.toml"), dir.join("other.sock"));
    let text = format!("[daemon]\nsocket = {other:?}\nmax_connections = 7\nlog_format = \"json\"\n");
    fs::write(&path, text).unwrap();
    // The tests name a socket, and so go before the file.
    let daemon = Daemon::with_log_read(&["--config", path.to_str().unwrap()]);
    assert!(!other.exists());
    let ready = logged(&daemon, &["ready"]);
    let ready: serde_json::Value = serde_json::from_str(&ready[0]).expect("an object");
    assert_eq!(ready["max_connections"], 7, "{ready}");
    assert_eq!(ready["level"], "INFO", "{ready}");
    let daemon = Daemon::with_log_read(&[
        "--config",
        path.to_str().unwrap(),
        "--max-connections",
        "9",
        "--log-format",
        "text",
    ]);
    logged(&daemon, &["ready", "max_connections=9"]);
    // Without a socket on the command line it is the file's.
    let notify = dir.join("notify.sock");
    let ready = std::os::unix::net::UnixDatagram::bind(&notify).unwrap();
    ready.set_read_timeout(Some(redirector_tests::HANG)).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--config", path.to_str().unwrap()]);
    command.env_remove("REDIRECTOR_SOCKET").env("NOTIFY_SOCKET", &notify);
    let mut child = redirector_tests::command::spawn(&mut command);
    ready.recv(&mut [0; 64]).expect("it is ready");
    assert!(other.exists());
    nix::sys::signal::kill(redirector_tests::command::pid(&child), Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}
