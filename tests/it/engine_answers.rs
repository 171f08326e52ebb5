//! Container engines that answer anything, or nothing: clear errors, nothing changed, and nobody is held up.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::net::UnixListener,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use redirector_tests::{
    cli::error,
    command::spawn,
    daemon::Daemon,
    dir::Dir,
    eventually::eventually,
    exec::PYTHON,
    fake_engine::{Answer, Body, engine, inspected, inspects, json, status, version},
    netns::Netns,
    topology::Topology,
};

use crate::SECOND;

fn options(dir: &Dir) -> [String; 2] {
    ["docker", "podman"].map(|kind| format!("--{kind}-socket={}", dir.join(kind).display()))
}

fn daemon(dir: &Dir) -> Daemon {
    let options = options(dir);
    Daemon::with_log_read(&options.each_ref().map(String::as_str))
}

#[test]
fn an_engine_that_answers_anything_is_an_error_that_names_it() {
    type Serve = Box<dyn Fn(&str) -> Answer + Send + Sync>;
    let garbage: [(Serve, i32, &str); 13] = [
        (Box::new(|_| Answer::Bytes(String::new())), 1, "not an answer"),
        (Box::new(|_| Answer::Bytes("SSH-2.0-OpenSSH_9.2p1\r\n".into())), 1, "not an answer"),
        (
            Box::new(|_| Answer::Bytes("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".into())),
            1,
            "not an answer",
        ),
        (
            Box::new(|_| Answer::Bytes("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n<p>".into())),
            1,
            "not an answer",
        ),
        (Box::new(|_| json("[]")), 1, "not an answer"),
        (Box::new(|_| json(r#"{"ApiVersion":"one"}"#)), 1, "not an answer"),
        (Box::new(inspects("{}")), 1, "without an id"),
        (Box::new(inspects(r#"{"Id":"short","Name":"/web"}"#)), 1, "without an id"),
        (Box::new(inspects(r#"{"Id":"ID","Name":"/other","State":{"Pid":1}}"#)), 3, "that is `other` now"),
        (Box::new(inspects(r#"{"Id":"ID","Name":"/web","State":{"Pid":-5}}"#)), 3, "not running"),
        (
            Box::new(inspects(r#"{"Id":"ID","Name":"/web","State":{"Pid":2147483647}}"#)),
            3,
            "no process 2147483647",
        ),
        (Box::new(inspects(r#"{"Id":"ID","Name":"/web","State":{"Pid":OURS}}"#)), 1, "host's own"),
        (
            Box::new(inspects(
                r#"{"Id":"ID","Name":"/web","State":{"Pid":9999999999},"NetworkSettings":{"SandboxKey":"/etc/passwd"}}"#,
            )),
            3,
            "not running",
        ),
    ];
    let dir = Dir::new();
    let daemon = daemon(&dir);
    let fds = daemon.fds_at_rest();
    for (answer, code, word) in garbage {
        for kind in ["docker", "podman"] {
            let socket = dir.join(kind);
            // An engine of the same name before this one has ended.
            drop(fs::remove_file(&socket));
        }
        engine(&dir.join("docker"), answer);
        let attach = ["attach", "docker:web", "--match", "tcp:80", "--to", "pass", "--no-follow"];
        let outcome = daemon.cli().run(&attach);
        let said = error(&outcome, code);
        assert!(said.contains("docker:web") && said.contains(word), "{word}: {said}");
        if code == 1 && word != "host's own" {
            assert!(said.contains(&*dir.join("docker").to_string_lossy()), "it names the socket: {said}");
        }
        assert_eq!(daemon.cli().json(&["list"])["namespaces"], serde_json::json!([]));
    }
    daemon.eventually_has_fds(fds);
}

#[test]
fn an_engine_that_is_not_there_is_an_error_with_a_hint() {
    let dir = Dir::new();
    let daemon = daemon(&dir);
    for kind in ["docker", "podman"] {
        let socket = dir.join(kind);
        for _ in 0..2 {
            let target = format!("{kind}:web");
            let outcome =
                daemon.cli().run(&["attach", &target, "--match", "tcp:80", "--to", "pass", "--follow"]);
            let said = error(&outcome, 1);
            assert!(said.contains(&target) && said.contains(&*socket.to_string_lossy()), "{said}");
            assert!(outcome.stderr.contains(&format!("--{kind}-socket")), "{outcome}");
            // A socket that nobody listens at.
            drop(UnixListener::bind(&socket));
        }
    }
    assert_eq!(daemon.cli().json(&["list"])["waiting"], serde_json::json!([]));
}

#[test]
fn an_engine_that_never_answers_is_given_up_and_holds_up_nobody() {
    let dir = Dir::new();
    engine(&dir.join("docker"), |_| Answer::Silence);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    engine(&dir.join("podman"), move |path| {
        if path.ends_with("/version") {
            return version();
        }
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::Silence
    });
    let daemon = daemon(&dir);
    let net = Topology::new();
    let pod = net.pod.target();
    let attach = |target: &str, to: &str, options: &[&str]| {
        let mut command = daemon.cli().command(
            &[&["attach", target, "--match", "tcp:80", "--to", to, "--connect-timeout", "1s"], options]
                .concat(),
        );
        spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    };
    let mut held = [
        attach("docker:web", "pass", &[]),
        attach("podman:web", "pass", &["--follow"]),
        attach(&pod, "docker:web/127.0.0.1:80", &[]),
    ];
    // Others are served meanwhile.
    daemon.cli().json(&["attach", &pod, "--match", "tcp:81", "--to", "pass"]);
    daemon.cli().json(&["list"]);
    daemon.cli().json(&["detach", &pod]);
    for child in &mut held {
        assert!(child.try_wait().expect("wait").is_none(), "it still waits for the engine");
    }
    for child in held {
        let output = child.wait_with_output().expect("wait");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("no answer within 10 s"), "{stderr}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "who is not answered once is not asked twice");
    assert_eq!(daemon.cli().json(&["list"])["namespaces"], serde_json::json!([]));
}

#[test]
fn the_doctor_says_which_engines_answer() {
    let dir = Dir::new();
    engine(&dir.join("docker"), inspects("{}"));
    let [docker, podman] = options(&dir);
    let report =
        redirector_tests::cli::Cli::new(&dir.join("control.sock")).json(&["doctor", &docker, &podman]);
    let found = |name: &str| {
        let checks = report["checks"].as_array().expect("an array");
        let check = checks.iter().find(|check| check["name"] == name).expect("a check of that name");
        (check["status"].clone(), check["found"].as_str().expect("what was found").to_owned())
    };
    let (status, said) = found("docker");
    assert!(status == "ok" && said.contains("API 1.41"), "{said}");
    let (status, said) = found("podman");
    assert!(status == "note" && said.contains(&*dir.join("podman").to_string_lossy()), "{said}");
}

#[test]
fn cleanup_and_exec_ask_the_engine_that_they_are_told_of() {
    let dir = Dir::new();
    engine(&dir.join("docker"), inspects(r#"{"Id":"ID","Name":"/web","State":{"Pid":OURS}}"#));
    let [option, _] = options(&dir);
    let cli = redirector_tests::cli::Cli::new(&dir.join("control.sock"));
    let cleaned = cli.json(&["cleanup", &option, "docker:web"]);
    assert_eq!(cleaned["removed"], serde_json::json!([]));
    let outcome = cli.run(&["exec", &option, "docker:web", "--match", "tcp:80", "--", "true"]);
    assert_eq!(outcome.code(), 125, "{outcome}");
    assert!(outcome.stderr.contains("host's own"), "{outcome}");
}

#[test]
fn an_engine_that_tells_nobody_what_happens_is_asked_seldom_and_named_once() {
    let dir = Dir::new();
    let pod = Netns::of_process();
    let container = inspected(pod.pid());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    engine(&dir.join("docker"), move |path| {
        if path.ends_with("/version") {
            return version();
        }
        if path.contains("/events") {
            counted.fetch_add(1, Ordering::Relaxed);
            return status("403 Forbidden", r#"{"message":"not for you"}"#);
        }
        json(&container)
    });
    let daemon = daemon(&dir);
    let attach = ["attach", "docker:web", "--match", "tcp:80", "--to", "reject", "--follow"];
    assert_eq!(daemon.cli().json(&attach)["result"], "attached");
    eventually("it is asked again", SECOND * 3, || {
        let asked = asked.load(Ordering::Relaxed);
        if asked >= 5 { Ok(()) } else { Err(asked) }
    });
    let said = daemon.eventually_says(&["not told what happens to containers", "not for you"]);
    assert_eq!(said.len(), 1, "{said:#?}");
    assert_eq!(daemon.cli().json(&["list"])["namespaces"][0]["rules"][0]["follows"], "docker:web");
}

#[test]
fn looks_that_fail_are_tried_again_one_at_a_time() {
    const EVENTS: usize = 50;
    let dir = Dir::new();
    let pod = Netns::of_process();
    let container = inspected(pod.pid());
    let events = Body::default();
    let looks = Arc::new(AtomicUsize::new(0));
    let (counted, stream) = (Arc::clone(&looks), events.clone());
    engine(&dir.join("docker"), move |path| {
        if path.ends_with("/version") {
            return version();
        }
        if path.contains("/events") {
            return Answer::Events(stream.clone());
        }
        // What the user asks, and what the follower looks at when it begins; then an event for each look that fails.
        let look = counted.fetch_add(1, Ordering::Relaxed);
        if look < 2 {
            return json(&container);
        }
        if look < 2 + EVENTS {
            stream.say("start");
        }
        status("500 Internal Server Error", r#"{"message":"out of order"}"#)
    });
    let daemon = daemon(&dir);
    let attach = ["attach", "docker:web", "--match", "tcp:80", "--to", "reject", "--follow"];
    daemon.cli().json(&attach);
    let eventually_looked = |times: usize| {
        eventually("it is looked at", SECOND * 3, || {
            let looks = looks.load(Ordering::Relaxed);
            if looks >= times { Ok(()) } else { Err(looks) }
        });
    };
    eventually_looked(2);
    events.say("start");
    // The last event's, and one that nothing was heard before.
    eventually_looked(2 + EVENTS + 1 + 1);
    daemon.cli().json(&["list"]);
    let looks = looks.load(Ordering::Relaxed);
    assert!(looks < 2 + EVENTS + 10, "{looks} looks for {EVENTS} events");
    assert_eq!(daemon.log_with(&["a rule cannot follow"]), Vec::<String>::new());
    daemon.cli().json(&["detach", "docker:web"]);
    assert_eq!(daemon.cli().json(&["list"])["waiting"], serde_json::json!([]));
}

#[test]
fn the_process_of_an_engine_with_processes_of_its_own_is_not_anybody_elses() {
    /// Answers at a socket that the container `web` is process 1; says a line when it listens.
    const ENGINE: &str = r#"
import socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("there?", flush=True)
while True:
    connection, _ = listener.accept()
    request = connection.recv(65536).split()
    if not request:
        # Somebody who only wanted to know who listens.
        continue
    body = b'{"ApiVersion":"1.41"}' if request[1].endswith(b"/version") else sys.argv[2].encode()
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body)
    connection.close()
"#;
    let dir = Dir::new();
    let mut engine = Command::new("unshare");
    engine.args(["--pid", "--fork", "--kill-child", "--", PYTHON, "-c", ENGINE]);
    let mut engine = spawn(engine.arg(dir.join("docker")).arg(inspected(1)).stdout(Stdio::piped()));
    let mut said = String::new();
    let mut stdout = BufReader::new(engine.stdout.take().expect("a pipe"));
    stdout.read_line(&mut said).expect("read what the engine says");
    let daemon = daemon(&dir);
    let attach = ["attach", "docker:web", "--match", "tcp:80", "--to", "reject"];
    let outcome = daemon.cli().run(&attach);
    // `unshare` ends its child when it ends.
    engine.kill().expect("end the engine");
    engine.wait().expect("wait for the engine");
    // Its process 1 is the engine itself, which is in this namespace; ours is another one, wherever that is.
    let said = error(&outcome, 1);
    assert!(said.contains("docker:web") && said.contains("container uses the host's own"), "{said}");
    assert_eq!(daemon.cli().json(&["list"])["namespaces"], serde_json::json!([]));
}
