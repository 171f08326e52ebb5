//! Container engines that answer anything, or nothing: clear errors, nothing changed, and nobody is held up.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Stdio,
    thread,
};

use redirector_tests::{cli::error, command::spawn, daemon::Daemon, dir::Dir, topology::Topology};

/// An id that engines could give.
const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Serves a socket by a function from the request's path to all bytes of the answer; `None` is silence for ever.
/// It ends with the process.
fn engine(socket: &Path, answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).expect("bind the engine's socket");
    thread::spawn(move || {
        let mut silent = Vec::new();
        for connection in listener.incoming().map_while(Result::ok) {
            silent.extend(serve(connection, &answer));
        }
    });
}

fn serve(connection: UnixStream, answer: &impl Fn(&str) -> Option<String>) -> Option<UnixStream> {
    let mut reader = BufReader::new(connection);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => head.push(line),
        }
    }
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let mut connection = reader.into_inner();
    match answer(path) {
        Some(bytes) => {
            // The client may not want all of it.
            drop(connection.write_all(bytes.as_bytes()));
            None
        }
        None => Some(connection),
    }
}

fn json(body: &str) -> Option<String> {
    let length = body.len();
    Some(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// An engine that knows the version, and this of every container.
fn inspects(body: &str) -> impl Fn(&str) -> Option<String> + Send + Sync + 'static {
    // This process is in the host's namespace.
    let body = body.replace("ID", ID).replace("OURS", &std::process::id().to_string());
    move |path| if path.ends_with("/version") { json(r#"{"ApiVersion":"1.41"}"#) } else { json(&body) }
}

fn options(dir: &Dir) -> [String; 2] {
    ["docker", "podman"].map(|kind| format!("--{kind}-socket={}", dir.join(kind).display()))
}

fn daemon(dir: &Dir) -> Daemon {
    let options = options(dir);
    Daemon::with(&options.each_ref().map(String::as_str))
}

#[test]
fn an_engine_that_answers_anything_is_an_error_that_names_it() {
    type Answer = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;
    let garbage: [(Answer, i32, &str); 13] = [
        (Box::new(|_| Some(String::new())), 1, "not an answer"),
        (Box::new(|_| Some("SSH-2.0-OpenSSH_9.2p1\r\n".into())), 1, "not an answer"),
        (Box::new(|_| Some("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{".into())), 1, "not an answer"),
        (
            Box::new(|_| Some("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\n<p>".into())),
            1,
            "not an answer",
        ),
        (Box::new(|_| json("[]")), 1, "not an answer"),
        (Box::new(|_| json(r#"{"ApiVersion":"one"}"#)), 1, "not an answer"),
        (Box::new(inspects("{}")), 1, "without an id"),
        (Box::new(inspects(r#"{"Id":"short","Name":"/web"}"#)), 1, "without an id"),
        (Box::new(inspects(r#"{"Id":"ID","Name":"/other","State":{"Pid":1}}"#)), 1, "speaks of another"),
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
        let outcome = daemon.cli().run(&["attach", "docker:web", "--match", "tcp:80", "--to", "pass"]);
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
    engine(&dir.join("docker"), |_| None);
    engine(&dir.join("podman"), |path| {
        if path.ends_with("/version") { json(r#"{"ApiVersion":"1.41"}"#) } else { None }
    });
    let daemon = daemon(&dir);
    let net = Topology::new();
    let pod = net.pod.target();
    let attach = |target: &str, to: &str| {
        let mut command = daemon.cli().command(&[
            "attach",
            target,
            "--match",
            "tcp:80",
            "--to",
            to,
            "--connect-timeout",
            "1s",
        ]);
        spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()))
    };
    let mut held =
        [attach("docker:web", "pass"), attach("podman:web", "pass"), attach(&pod, "docker:web/127.0.0.1:80")];
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
