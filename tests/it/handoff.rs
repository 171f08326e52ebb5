//! `handoff.sock`: who may have listeners, for how long, and what is left of a request that comes to nothing.

use std::{
    fs::{self, Permissions},
    io::{BufRead as _, BufReader, ErrorKind, Read as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
};

use nix::sys::signal::Signal;
use redirector_tests::{
    HANG,
    client::answer,
    command::{must, run},
    eventually::eventually,
    exec::{Exec, PYTHON},
    server::{Place, Server, echo},
    topology::{POD_V4, POD_V6, at},
    world::World,
};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use super::SECOND;

/// The client that the documentation shows, and most of these tests use.
#[path = "../../docs/examples/lease.rs"]
mod lease;

/// The same in Python.
const CLIENT: &str = include_str!("../../docs/examples/lease.py");

fn handoff(world: &World) -> PathBuf {
    world.daemon.socket().with_file_name("handoff.sock")
}

/// Listeners for this process.
#[track_caller]
pub(super) fn ask(world: &World, matching: &str, name: &str) -> Vec<Socket> {
    ask_for(world, &json!({ "target": world.target(), "match": [matching], "name": name }))
}

/// Those of a request.
#[track_caller]
pub(super) fn ask_for(world: &World, request: &Value) -> Vec<Socket> {
    let (answer, listeners) = lease::lease(&handoff(world), request).expect("a lease");
    assert_eq!(answer["rule"], request["name"], "{answer:#}");
    assert_eq!(answer["listeners"].as_array().unwrap().len(), listeners.len(), "{answer:#}");
    listeners.into_iter().map(Socket::from).collect()
}

/// What the daemon says to a message, and how many bytes of answer there were.
#[track_caller]
fn exchange(world: &World, message: &[u8]) -> Option<Value> {
    let connection = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
    connection.connect(&SockAddr::unix(handoff(world)).unwrap()).unwrap();
    connection.set_read_timeout(Some(HANG)).unwrap();
    connection.send(message).unwrap();
    let mut answer = vec![0; 64 * 1024];
    let redirector::sys::socket::Received { length, fds, .. } =
        redirector::sys::socket::receive_with_fds(&connection, &mut answer).unwrap();
    assert!(fds.is_empty(), "a wrong request must get no listener");
    (length > 0).then(|| serde_json::from_slice(&answer[..length]).expect("one JSON document"))
}

#[track_caller]
fn assert_steers_nothing(world: &World) {
    assert_eq!(world.list()["namespaces"], json!([]));
}

#[track_caller]
fn eventually_steers_nothing(world: &World) {
    eventually("nothing is steered", SECOND, || {
        let list = world.list();
        if list["namespaces"] == json!([]) { Ok(()) } else { Err(list) }
    });
}

/// A script, with the documented client as a module.
#[track_caller]
fn python(world: &World, script: &str, arguments: &[&str]) -> Command {
    fs::write(world.daemon.dir().join("lease.py"), CLIENT).expect("write a program");
    let mut command = Command::new(PYTHON);
    command.args(["-c", script]).arg(handoff(world)).arg(world.target()).args(arguments);
    command.env("PYTHONPATH", world.daemon.dir().path()).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// A program that has a lease and does nothing with it.
const HOLDER: &str = "
import lease, sys
answer, listeners = lease.lease(sys.argv[1], {'target': sys.argv[2], 'match': [sys.argv[3]], 'name': sys.argv[4]})
print('leased', flush=True)
sys.stdin.read()
";

#[test]
fn a_program_that_asks_serves_true_clients_at_their_original_destination() {
    let world = World::new();
    let mine = Server::of(ask(&world, "tcp:80", "lease"), "mine", echo);
    for pod in [POD_V4, POD_V6] {
        let (conversation, name) = world.open(at(pod, 80));
        assert_eq!(name, "mine");
        assert_eq!(mine.peers().last(), Some(&conversation.stream().local_addr().unwrap()));
        assert_eq!(world.visit(at(pod, 80)).local, Some(at(pod, 80)));
    }
    let rule = world.rule("lease");
    assert_eq!(rule["origin"], "lease", "{rule:#}");
    assert_eq!(rule["lease"]["pid"], std::process::id(), "{rule:#}");
    assert_eq!(rule["lease"]["listeners"].as_array().unwrap().len(), 2, "{rule:#}");
    // The program lives on without its listeners.
    drop(mine);
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
    let rule = world.rule("lease");
    assert!(
        rule["lease"]["listeners"].as_array().unwrap().iter().all(|one| one["healthy"] == false),
        "{rule:#}"
    );
    assert!(rule["counters"]["unavailable"].as_u64() > Some(0), "{rule:#}");
}

#[test]
fn an_application_starts_while_connections_of_a_hand_off_to_its_port_are_open() {
    let world = World::new();
    let mine = Server::of(ask(&world, "tcp:80", "lease"), "mine", echo);
    let _open = [POD_V4, POD_V6].map(|pod| world.open(at(pod, 80)));
    let _app = Server::inside(&world.net.pod, "app", 80);
    assert_eq!(world.answer(at(POD_V4, 80)), "mine");
    drop(mine);
    world.detach();
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "app");
    }
}

#[test]
fn the_python_client_of_the_documentation_serves_and_its_lease_ends_with_it() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
    let script = world.daemon.dir().join("lease.py");
    fs::write(&script, CLIENT).unwrap();
    let mut client = Command::new(PYTHON);
    let mut client = Exec::start(client.arg(&script).arg(handoff(&world)).args([&*world.target(), "tcp:80"]));
    client.expect_line("rule rule-1");
    for pod in [POD_V4, POD_V6] {
        let stream = world.net.client.enter(|| TcpStream::connect_timeout(&at(pod, 80), HANG)).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        let own = stream.local_addr().unwrap();
        assert_eq!(line, format!("{} {} reached {pod} 80\n", own.ip(), own.port()));
    }
    client.end(Signal::SIGKILL);
    eventually_steers_nothing(&world);
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
    // What is refused is said.
    let outcome =
        run(Command::new(PYTHON).arg(&script).arg(handoff(&world)).args(["netns:rdt-none", "tcp:80"]));
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(outcome.stderr.contains("not_found") && outcome.stderr.contains("rdt-none"), "{outcome}");
}

#[test]
fn a_lease_ends_with_the_process_and_not_with_the_connection() {
    let world = World::new();
    let mut holder = Exec::start(&mut python(&world, HOLDER, &["tcp:80", "lease"]));
    holder.expect_line("leased");
    // The client has closed its connection; the daemon, which looks every 2 s, has looked.
    redirector_tests::eventually::at_intervals(150, || assert_eq!(world.rule("lease")["state"], "up"));
    holder.close_stdin();
    assert_eq!(holder.code(), 0);
    eventually_steers_nothing(&world);
}

#[test]
fn wrong_requests_are_refused_and_change_nothing() {
    let world = World::new();
    let before = world.daemon.fds_at_rest();
    let target = world.target();
    let right = json!({ "target": target, "match": ["tcp:80"] });
    let with = |field: &str, value: Value| {
        let mut request = right.clone();
        request[field] = value;
        request.to_string().into_bytes()
    };
    let long = with("name", "x".repeat(100_000).into());
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"not JSON".to_vec(), "usage"),
        (vec![0xff; 100], "usage"),
        (b"{}".to_vec(), "usage"),
        (b"[]".to_vec(), "usage"),
        (json!({ "target": target }).to_string().into_bytes(), "usage"),
        (json!({ "match": ["tcp:80"] }).to_string().into_bytes(), "usage"),
        ([right.to_string(), right.to_string()].concat().into_bytes(), "usage"),
        (with("to", json!(["reject"])), "usage"),
        (with("unknown", json!(1)), "usage"),
        (with("match", json!([])), "usage"),
        (with("match", json!("tcp:80")), "usage"),
        (with("match", json!(["tcp:0"])), "usage"),
        (with("name", json!("a/b c")), "usage"),
        (with("on_unavailable", json!("hang")), "usage"),
        (with("kill_after", json!("soon")), "usage"),
        (with("listen_as", json!(0)), "usage"),
        (with("listen_as", json!(8080)), "usage"),
        (with("target", json!("nowhere")), "usage"),
        (long, "usage"),
        (with("target", json!("netns:rdt-none")), "not_found"),
        (with("target", json!("pid:1")), "failed"),
        (with("target", json!("self")), "failed"),
    ];
    for (message, code) in cases {
        let shown = String::from_utf8_lossy(&message[..message.len().min(200)]).into_owned();
        let answer = exchange(&world, &message).unwrap_or_else(|| panic!("no answer to {shown}"));
        assert_eq!(answer["schema"], 1, "{shown}: {answer:#}");
        assert_eq!(answer["error"]["code"], code, "{shown}: {answer:#}");
        let said = answer["error"]["message"].as_str().expect("a message");
        assert!(!said.is_empty() && !said.contains('\n'), "{shown}: {answer:#}");
        assert_steers_nothing(&world);
    }
    assert_eq!(exchange(&world, b""), None, "an empty message is no request");
    world.daemon.eventually_has_fds(before);
}

#[test]
fn fds_that_are_not_what_a_request_needs_are_refused() {
    let world = World::new();
    let before = world.daemon.fds_at_rest();
    let script = "
import json, os, socket, sys
right = {'target': sys.argv[2], 'match': ['tcp:80']}
for request, fds in [(right, [0]), (right | {'listen_as': 8080}, [0]), (right | {'listen_as': 8080}, [0, 1])]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(sys.argv[1])
        socket.send_fds(connection, [json.dumps(request).encode()], fds)
        print(json.loads(connection.recv(65536))['error']['code'])
";
    assert_eq!(must(&mut python(&world, script, &[])).stdout, "usage\nusage\nusage\n");
    assert_steers_nothing(&world);
    world.daemon.eventually_has_fds(before);
}

#[test]
fn programs_that_connect_and_say_nothing_hold_nobody_up() {
    let world = World::new();
    let silent: Vec<_> = (0..100)
        .map(|_| {
            let connection = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
            connection.connect(&SockAddr::unix(handoff(&world)).unwrap()).unwrap();
            connection
        })
        .collect();
    let asked = std::time::Instant::now();
    let mine = Server::of(ask(&world, "tcp:80", "lease"), "mine", echo);
    println!("a lease beside silent connections: after {:?}", asked.elapsed());
    // They are thrown out when they have been silent for too long, and not before: it did not wait for that.
    for connection in &silent {
        connection.set_nonblocking(true).unwrap();
        let mut connection = connection;
        assert_eq!(connection.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    assert_eq!(world.answer(at(POD_V4, 80)), "mine");
    drop(mine);
}

#[test]
fn fds_that_come_with_a_request_are_not_kept() {
    let world = World::new();
    let before = world.daemon.fds_at_rest();
    let script = "
import os, socket, sys
for number in range(50):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(sys.argv[1])
        socket.send_fds(connection, [b'{}'], [0] * 200)
        assert b'error' in connection.recv(65536)
";
    must(&mut python(&world, script, &[]));
    world.daemon.eventually_has_fds(before);
    assert_steers_nothing(&world);
}

#[test]
fn another_user_gets_neither_an_answer_nor_a_listener() {
    let world = World::new();
    // Both sockets: one with a request that would be right, of either protocol.
    let script = "
import lease, socket, sys
try:
    answer, listeners = lease.lease(sys.argv[1], {'target': sys.argv[2], 'match': ['tcp:80']})
    print('leased', answer, flush=True)
except lease.Refused as refused:
    print('refused', refused)
except PermissionError:
    print('forbidden')
with socket.socket(socket.AF_UNIX) as control:
    try:
        control.connect(sys.argv[1].replace('handoff', 'control'))
        control.sendall(b'GET /v1/namespaces HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n')
        print(control.recv(65536).split(b'\\r\\n')[0].decode())
    except PermissionError:
        print('forbidden')
";
    let as_nobody = || {
        let inner = python(&world, script, &[]);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        must(&mut command)
    };
    let outcome = as_nobody();
    assert_eq!(outcome.stdout, "forbidden\nforbidden\n", "{outcome}");
    // Nor when somebody has opened the file to everybody.
    fs::set_permissions(handoff(&world), Permissions::from_mode(0o666)).unwrap();
    let outcome = as_nobody();
    assert!(outcome.stdout.starts_with("refused ") && outcome.stdout.contains("65534"), "{outcome}");
    assert!(outcome.stdout.ends_with("forbidden\n"), "{outcome}");
    assert_steers_nothing(&world);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.daemon.socket().to_owned()), 0o600);
}

/// What listens in the pod.
fn sockets(world: &World) -> Vec<String> {
    let mut lines: Vec<_> = world.net.pod.must("ss", &["-Htln"]).stdout.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A program that asks and is gone before the answer.
const HASTY: &str = "
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(sys.argv[1])
connection.send(json.dumps({'target': sys.argv[2], 'match': ['tcp:80']}).encode())
os._exit(0)
";

#[test]
fn a_receiver_that_dies_before_it_is_heard_gets_nothing() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    let (before, snapshot) = (world.daemon.fds_at_rest(), sockets(&world));
    // It has ended when the daemon looks.
    world.daemon.signal(Signal::SIGSTOP);
    for _ in 0..5 {
        must(&mut python(&world, HASTY, &[]));
    }
    world.daemon.signal(Signal::SIGCONT);
    eventually_steers_nothing(&world);
    // And it ends some time while the daemon works on it.
    for _ in 0..20 {
        must(&mut python(&world, HASTY, &[]));
    }
    eventually_steers_nothing(&world);
    world.daemon.eventually_has_fds(before);
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "app");
    }
    assert_eq!(sockets(&world), snapshot);
}

#[test]
fn a_receiver_that_does_not_take_its_listeners_has_them_until_it_ends() {
    let world = World::new();
    let before = world.daemon.fds_at_rest();
    let script = "
import json, os, socket, sys
connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
connection.connect(sys.argv[1])
connection.send(json.dumps({'target': sys.argv[2], 'match': ['tcp:80']}).encode())
connection.recv(1, socket.MSG_PEEK)
print('there', flush=True)
sys.stdin.read()
";
    let mut lazy = Exec::start(&mut python(&world, script, &[]));
    lazy.expect_line("there");
    assert_eq!(world.pod()["rules"][0]["lease"]["pid"], lazy.pid().as_raw());
    lazy.end(Signal::SIGKILL);
    eventually_steers_nothing(&world);
    world.daemon.eventually_has_fds(before);
}

#[test]
fn a_thousand_requests_at_once_are_granted_or_refused_and_nothing_is_left() {
    let world = World::new();
    let proxy = Server::here("proxy");
    world.steer("http", "tcp:79", &proxy.destination());
    let before = world.daemon.fds_at_rest();
    let script = "
import json, resource, socket, sys
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
connections = []
for number in range(1000):
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(sys.argv[1])
    connection.send(json.dumps({'target': sys.argv[2], 'match': [f'tcp:{1000 + number}']}).encode())
    connections.append(connection)
granted, refused, listeners = 0, 0, []
for connection in connections:
    message, fds, _, _ = socket.recv_fds(connection, 65536, 8)
    listeners += fds
    if 'error' in json.loads(message):
        assert not fds
        refused += 1
    else:
        assert len(fds) == 2
        granted += 1
print(granted, refused, flush=True)
sys.stdin.read()
";
    let mut many = Exec::start(&mut python(&world, script, &[]));
    let line = many.line();
    let (granted, refused) = line.split_once(' ').unwrap();
    let (granted, refused): (usize, usize) = (granted.parse().unwrap(), refused.parse().unwrap());
    println!("{granted} granted, {refused} refused");
    assert_eq!(granted + refused, 1000);
    assert_eq!(granted, redirector_ebpf::MAX_CONSUMERS - 1, "as many as there are places");
    assert_eq!(world.pod()["rules"].as_array().unwrap().len(), granted + 1);
    assert_eq!(world.answer(at(POD_V4, 79)), "proxy");
    many.end(Signal::SIGKILL);
    eventually("only the rule from before is left", SECOND * 3, || {
        let pod = world.pod();
        if pod["rules"].as_array().unwrap().len() == 1 { Ok(()) } else { Err(pod) }
    });
    world.daemon.eventually_has_fds(before);
    assert_eq!(world.answer(at(POD_V4, 79)), "proxy");
    // The places are free again.
    let _mine = Server::of(ask(&world, "tcp:80", "lease"), "mine", echo);
    assert_eq!(world.answer(at(POD_V4, 80)), "mine");
}

#[test]
fn two_leases_of_one_namespace_do_not_touch_each_other() {
    let world = World::new();
    let mine = Server::of(ask(&world, "tcp:80", "mine"), "mine", echo);
    let mut other = Exec::start(&mut python(&world, HOLDER, &["tcp:81", "other"]));
    other.expect_line("leased");
    assert_eq!(world.answer(at(POD_V6, 80)), "mine");
    let names = |world: &World| -> Vec<String> {
        let pod = world.pod();
        let rules = pod["rules"].as_array().unwrap();
        rules.iter().map(|rule| rule["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&world), ["mine", "other"]);
    // A name that is taken, by a lease or by another rule.
    let request = json!({ "target": world.target(), "match": ["tcp:82"], "name": "other" });
    let error = lease::lease(&handoff(&world), &request).unwrap_err();
    assert!(error.to_string().contains("other"), "{error}");
    other.end(Signal::SIGKILL);
    eventually("the other rule is gone", SECOND, || {
        let names = names(&world);
        if names == ["mine"] { Ok(()) } else { Err(names) }
    });
    assert_eq!(world.answer(at(POD_V4, 80)), "mine");
    assert_eq!(world.answer(at(POD_V4, 81)), "refused");
    drop(mine);
}

#[test]
fn a_lease_that_is_detached_is_over_and_its_end_does_not_touch_who_comes_after() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    let proxy = Server::here("proxy");
    world.steer("http", "tcp:79", &proxy.destination());
    let mut first = Exec::start(&mut python(&world, HOLDER, &["tcp:80", "lease"]));
    first.expect_line("leased");
    let detached = world.cli().json(&["detach", &world.target(), "--rule", "lease"]);
    assert_eq!(detached["rules"], json!(["lease"]), "{detached:#}");
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
    // The same name and the same place for the next one.
    let _mine = Server::of(ask(&world, "tcp:80", "lease"), "mine", echo);
    assert_eq!(world.answer(at(POD_V4, 80)), "mine");
    assert_eq!(world.rule("lease")["lease"]["pid"], std::process::id());
    first.end(Signal::SIGKILL);
    redirector_tests::eventually::at_intervals(25, || assert_eq!(world.answer(at(POD_V4, 80)), "mine"));
    let rule = world.rule("lease");
    assert_eq!(rule["lease"]["pid"], std::process::id(), "{rule:#}");
    assert!(
        rule["lease"]["listeners"].as_array().unwrap().iter().all(|one| one["healthy"] == true),
        "{rule:#}"
    );
}

#[test]
fn detaching_the_namespace_ends_its_leases() {
    let world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    let mine = Server::of(ask(&world, "tcp:80", "lease"), "mine", echo);
    let (mut open, _) = world.open(at(POD_V4, 80));
    world.detach();
    assert_steers_nothing(&world);
    assert_eq!(world.answer(at(POD_V4, 80)), "app");
    open.echo("still there").unwrap();
    open.finish().unwrap();
    drop(mine);
}

#[test]
fn a_receiver_that_was_not_started_by_exec_finds_its_listeners_shut_down_when_the_namespace_dies() {
    let world = World::new();
    let script = "
import errno, lease, sys
answer, listeners = lease.lease(sys.argv[1], {'target': sys.argv[2], 'match': ['tcp:80']})
print('leased', flush=True)
try:
    listeners[0].accept()
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
for listener in listeners:
    listener.close()
print('closed', flush=True)
sys.stdin.read()
";
    let mut receiver = Exec::start(&mut python(&world, script, &[]));
    receiver.expect_line("leased");
    world.net.pod.delete();
    assert_eq!(receiver.expect_line("closed"), ["EINVAL"]);
    eventually("the kernel has let the namespace go", SECOND * 2, || {
        if world.net.is_joined() { Err(world.list()) } else { Ok(()) }
    });
    receiver.close_stdin();
    assert_eq!(receiver.code(), 0, "it was not signalled");
    eventually_steers_nothing(&world);
}

#[test]
fn a_daemon_that_is_stopped_leaves_clients_to_the_application() {
    let mut world = World::new();
    let _app = Server::inside(&world.net.pod, "app", 80);
    let mine = Server::of(ask(&world, "tcp:80", "lease"), "mine", echo);
    assert_eq!(world.answer(at(POD_V4, 80)), "mine");
    world.daemon.stop();
    assert_eq!(answer(&world.net.client, at(POD_V4, 80)), "app");
    assert!(!handoff(&world).exists());
    drop(mine);
}

#[test]
fn a_connection_that_waits_in_the_queue_of_a_dead_receiver_is_reset() {
    let world = World::new();
    let mut holder = Exec::start(&mut python(&world, HOLDER, &["tcp:80", "lease"]));
    holder.expect_line("leased");
    let mut waiting = world.net.client.enter(|| TcpStream::connect_timeout(&at(POD_V4, 80), HANG)).unwrap();
    waiting.set_read_timeout(Some(HANG)).unwrap();
    holder.end(Signal::SIGKILL);
    assert_eq!(waiting.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    eventually_steers_nothing(&world);
}

#[test]
fn who_holds_a_listener_can_connect_inside_the_namespace_as_the_documentation_warns() {
    let world = World::new();
    let loopback = at([127, 0, 0, 1].into(), 81);
    let _inner = Server::start(Place::In(&world.net.pod), "inner", &[loopback], echo);
    let listener = ask(&world, "tcp:80", "lease").remove(0);
    redirector::sys::socket::disconnect(&listener).unwrap();
    listener.set_read_timeout(Some(HANG)).unwrap();
    listener.connect(&loopback.into()).unwrap();
    let mut line = String::new();
    BufReader::new(&listener).read_line(&mut line).unwrap();
    assert!(line.starts_with("inner 127.0.0.1:"), "{line}");
}

#[test]
fn who_holds_an_accepted_connection_can_bind_inside_the_namespace_as_the_documentation_warns() {
    let world = World::new();
    let listener = ask(&world, "tcp:80", "lease").remove(0);
    let client = world.net.client.enter(|| TcpStream::connect(at(POD_V4, 80)).unwrap());
    let (accepted, _) = listener.accept().unwrap();
    redirector::sys::socket::disconnect(&accepted).unwrap();
    drop(client);
    let foreign = at([192, 0, 2, 1].into(), 5000);
    accepted.bind(&foreign.into()).unwrap();
    assert_eq!(accepted.local_addr().unwrap().as_socket(), Some(foreign));
}
