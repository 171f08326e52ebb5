//! Other forms of what is named: files that processes hold open, abstract sockets, URLs, all interfaces but one, processes of
//! engines elsewhere.

use std::{
    io::Write as _,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram, UnixListener},
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use redirector_tests::{
    HANG,
    cli::error,
    command::{self, must},
    daemon::{Daemon, binary},
    dir::{self, Dir},
    eventually::{at_intervals, eventually},
    exec::PYTHON,
    fake_engine::{ID, engine, inspects},
    features::Feature,
    holder::Holder,
    netns::Netns,
    server::{Server, echo},
    topology::{POD_V4, Topology, at},
    world::World,
};

/// Asserts that the pod is steered for longer than a daemon takes that is wrong about it.
#[track_caller]
fn assert_stays_steered(world: &World) {
    at_intervals(150, || assert_eq!(world.answer(at(POD_V4, 80)), "proxy"));
}

/// A process that has a namespace's file open as fd 9 and is not in it.
fn holds_open(netns: &Netns) -> Holder {
    let script = "exec 9<\"$0\" && exec cat";
    Holder::start(Command::new("sh").args(["-c", script]).arg(netns.path()))
}

/// LXC, systemd and programs that were given an fd hold namespaces so.
#[test]
fn a_namespace_that_only_an_open_file_keeps_is_steered_until_that_is_closed() {
    let proxy = Server::here("proxy");
    let links = Dir::new();
    let link = links.join("link");
    // By the file of a process, by one of its threads, by a link to it, and by a mount of procfs.
    for form in 0..4 {
        let world = World::with(Daemon::start(), Topology::new());
        let holder = holds_open(&world.net.pod);
        let pid = holder.pid();
        let path = match form {
            0 => format!("/proc/{pid}/fd/9"),
            1 => format!("/proc/{pid}/task/{pid}/fd/9"),
            2 => {
                std::os::unix::fs::symlink(format!("/proc/{pid}/fd/9"), &link).unwrap();
                link.display().to_string()
            }
            _ => format!("/proc/{pid}/root/proc/{pid}/fd/9"),
        };
        world.net.pod.delete();
        let target = format!("path:{path}");
        world.cli().json(&["attach", &target, "--match", "tcp:80", "--to", &proxy.destination()]);
        assert_stays_steered(&world);
        drop(holder);
        is_gone(&world);
    }
}

#[track_caller]
fn is_gone(world: &World) {
    eventually("the kernel has let the namespace go", Duration::from_secs(2), || {
        if world.net.is_joined() { Err(world.list()) } else { Ok(()) }
    });
    eventually("`list` does not have it", Duration::from_secs(2), || {
        let list = world.list();
        if list["namespaces"] == serde_json::json!([]) { Ok(()) } else { Err(list) }
    });
}

#[test]
fn a_namespace_that_is_named_by_a_file_later_lives_as_long_as_that() {
    let proxy = Server::here("proxy");
    let world = World::new();
    world.steer("http", "tcp:80", &proxy.destination());
    let holder = holds_open(&world.net.pod);
    // The same rule once more: nothing changes, but that it has another name.
    let target = format!("path:/proc/{}/fd/9", holder.pid());
    let words = ["attach", &target, "--match", "tcp:80", "--to", &proxy.destination(), "--name", "http"];
    assert_eq!(world.cli().json(&words)["result"], "unchanged");
    world.net.pod.delete();
    assert_stays_steered(&world);
    drop(holder);
    is_gone(&world);
}

#[test]
fn a_file_that_leads_to_another_namespace_later_keeps_neither() {
    let proxy = Server::here("proxy");
    let (world, other) = (World::new(), Netns::new());
    // It opens the other one in the place of the first when it is asked to. Fd 9 alone: another one would keep it as well.
    let script = "import os,sys\n\
                  def hold(path):\n f=os.open(path,os.O_RDONLY); os.dup2(f,9); os.close(f)\n\
                  hold(sys.argv[1])\n\
                  print(sys.stdin.readline(),end='',flush=True)\n\
                  sys.stdin.readline()\n\
                  hold(sys.argv[2])\n\
                  print('other',flush=True)\n\
                  sys.stdin.read()";
    let mut command = Command::new(PYTHON);
    command.args(["-c", script]).arg(world.net.pod.path()).arg(other.path());
    let mut child = command::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"there?\n").unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    assert_eq!(lines.next().unwrap().unwrap(), "there?");
    let target = format!("path:/proc/{}/fd/9", child.id());
    world.net.pod.delete();
    world.cli().json(&["attach", &target, "--match", "tcp:80", "--to", &proxy.destination()]);
    assert_eq!(world.answer(at(POD_V4, 80)), "proxy");
    stdin.write_all(b"\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "other");
    is_gone(&world);
    drop(stdin);
    child.wait().unwrap();
}

#[test]
fn the_namespace_of_a_destination_may_be_kept_by_an_open_file() {
    let (world, inside) = (World::new(), Netns::new());
    inside.ip("link set dev lo up");
    let _app = Server::inside(&inside, "app", 5000);
    let holder = holds_open(&inside);
    inside.delete();
    world.steer("in", "tcp:80", &format!("path:/proc/{}/fd/9/127.0.0.1:5000", holder.pid()));
    at_intervals(150, || assert_eq!(world.answer(at(POD_V4, 80)), "app"));
}

#[test]
fn an_abstract_socket_is_a_destination_and_one_of_nobody_is_unavailable() {
    let world = World::new();
    let name = format!("rdt-{}", dir::unique());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let _server = Server::of(vec![listener.into()], "abstract", echo);
    world.steer("there", "tcp:80", &format!("unix:@{name}"));
    world.steer("not", "tcp:81", &format!("unix:@{name}-none"));
    assert_eq!(world.answer(at(POD_V4, 80)), "abstract");
    assert_eq!(world.rule("there")["to"][0], format!("unix:@{name}"));
    assert_ne!(world.answer(at(POD_V4, 81)), "abstract");
    let export = world.cli().run(&["export"]).success().stdout;
    assert_eq!(
        command::run_with_stdin(&mut world.cli().command(&["apply", "-", "--dry-run"]), &export).code(),
        0
    );
}

/// systemd in a container may have it so.
#[test]
fn the_daemon_tells_an_abstract_socket_that_it_is_ready() {
    let dir = Dir::new();
    let name = format!("rdt-{}", dir::unique());
    let ready = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    ready.set_read_timeout(Some(HANG)).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--socket"]).arg(dir.join("control.sock")).env("NOTIFY_SOCKET", format!("@{name}"));
    let mut child = command::spawn(&mut command);
    let mut told = [0; 64];
    let length = ready.recv(&mut told).expect("it is ready");
    assert!(told[..length].starts_with(b"READY=1\n"), "{:?}", &told[..length]);
    nix::sys::signal::kill(command::pid(&child), nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_socket_of_an_engine_may_be_written_as_a_url() {
    let dir = Dir::new();
    engine(&dir.join("docker"), inspects(r#"{"Id":"ID","Name":"/web","State":{"Pid":OURS}}"#));
    let url = format!("unix://{}", dir.join("docker").display());
    // By an option, by a variable, and in a file.
    let file = dir.join("file.toml");
    std::fs::write(&file, format!("[daemon]\ndocker_socket = {url:?}\n")).unwrap();
    let by_option = Daemon::with(&["--docker-socket", &url]);
    let by_file = Daemon::with(&["--config", file.to_str().unwrap()]);
    let by_variable =
        Daemon::spawn(Command::new(binary()).arg("run").env("REDIRECTOR_DOCKER_SOCKET", &url), &[]);
    for daemon in [&by_option, &by_file, &by_variable] {
        let outcome = daemon.cli().run(&["attach", "docker:web", "--match", "tcp:80", "--to", "reject"]);
        // It was asked, and leads to this process.
        assert!(error(&outcome, 1).contains("host's own"), "{outcome}");
        let control = format!("unix://{}", daemon.socket().display());
        let outcome = command::run(Command::new(binary()).args(["list", "--socket", &control]));
        outcome.success();
    }
    let cli = by_option.cli();
    let outcome = cli.run(&["doctor", "--docker-socket", "tcp://127.0.0.1:2375"]);
    assert!(error(&outcome, 2).contains("`tcp` is not supported"), "{outcome}");
}

#[test]
fn a_rule_may_be_for_all_interfaces_but_one() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    if !Feature::IngressIfindex.is_here() {
        let target = world.target();
        let words = ["attach", &target, "--match", "tcp:80", "--to", "pass", "--interface", "!lo"];
        assert!(error(&world.cli().run(&words), 1).contains("interface"), "the kernel does not tell it");
        return;
    }
    let _app = Server::inside(&world.net.pod, "app", 80);
    let loopback = at([127, 0, 0, 1].into(), 80);
    let answers = || {
        let inside = redirector_tests::client::answer(&world.net.pod, loopback);
        (world.answer(at(POD_V4, 80)), inside)
    };
    let attach = |interface: &str| {
        world.attach(&format!(
            "--name one --match tcp:80 --to {} --interface {interface}",
            proxy.destination()
        ))
    };
    for (interface, outside, inside) in
        [("!lo", "proxy", "app"), ("!eth0", "app", "proxy"), ("lo", "app", "proxy"), ("!lo", "proxy", "app")]
    {
        attach(interface);
        assert_eq!(answers(), (outside.into(), inside.into()), "{interface}");
        assert_eq!(world.rule("one")["interface"], serde_json::json!([interface]));
    }
    // A rule by name comes before one that leaves out, and that before one of all.
    world.attach("--name all --match tcp:80 --to reject");
    assert_eq!(answers(), ("proxy".into(), "refused".into()));
    world.attach("--name named --match tcp:80 --to pass --interface eth0");
    assert_eq!(answers(), ("app".into(), "refused".into()));
    let flow = "tcp 127.0.0.1:4000 -> 127.0.0.1:80 dev lo";
    let told = world.cli().run(&["explain", &world.target(), flow]).success();
    assert!(told.stdout.contains("one: it is for what comes by any interface but `lo`"), "{told}");
    for (words, part) in [
        (["--interface", "!lo", "--interface", "eth0"], "those that it takes"),
        (["--interface", "!eth9", "--interface", "!lo"], "!eth9"),
    ] {
        let target = world.target();
        let attach = ["attach", &target, "--match", "tcp:81", "--to", "pass"];
        let outcome = world.cli().run(&[&attach[..], &words].concat());
        assert!(outcome.stderr.contains(part) && outcome.code() != 0, "{outcome}");
    }
    // In a file as well, which says the same after an export.
    let export = world.cli().run(&["export"]).success().stdout;
    assert!(export.contains("\"!lo\""), "{export}");
    assert_eq!(
        command::run_with_stdin(&mut world.cli().command(&["apply", "-", "--dry-run"]), &export).code(),
        0
    );
}

/// An engine of a container beside the daemon: its numbers are not ours.
#[test]
fn a_container_of_an_engine_in_another_pid_namespace_is_found_by_its_number_there() {
    const ENGINE: &str = r#"
import json, os, socket, subprocess, sys
child = subprocess.Popen(["unshare", "--net", "--pid", "--fork", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdin.write(b"x\n"); child.stdin.flush(); child.stdout.readline()
inner = int(open(f"/proc/{child.pid}/task/{child.pid}/children").read().split()[0])
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1]); listener.listen()
print(inner, flush=True)
while True:
    connection, _ = listener.accept()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        part = connection.recv(1)
        if not part: break
        head += part
    if b"/version" in head: body = {"ApiVersion": "1.41"}
    else: body = {"Id": sys.argv[2], "Name": "/web", "State": {"Status": "running", "Pid": inner}}
    text = json.dumps(body).encode()
    # Who only looks who listens has gone.
    try: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(text) + text)
    except OSError: pass
    connection.close()
"#;
    let dir = Dir::new();
    let socket = dir.join("docker");
    let mut command = Command::new("unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--", PYTHON, "-c", ENGINE])
        .arg(&socket)
        .arg(ID);
    let mut engine = command::spawn(command.stdout(Stdio::piped()));
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(engine.stdout.take().unwrap()));
    let inner: u32 = lines.next().expect("it listens").unwrap().parse().unwrap();
    assert!(inner < 100, "a number of its own PID namespace: {inner}");
    let option = format!("--docker-socket={}", socket.display());
    let daemon = Daemon::with(&[&option]);
    let attached = daemon.cli().json(&["attach", "docker:web", "--match", "tcp:80", "--to", "reject"]);
    let own = Netns::at(Path::new("/proc/self/ns/net")).cookie();
    assert_ne!(attached["cookie"], own, "not that of another process with this number");
    // A daemon in a PID namespace beside it cannot find the process, and says what to do.
    let beside = Daemon::in_pid_namespace_with(&[&option]);
    let outcome = beside.cli().run(&["attach", "docker:web", "--match", "tcp:80", "--to", "reject"]);
    assert!(error(&outcome, 1).contains("another PID namespace"), "{outcome}");
    assert!(outcome.stderr.contains("hint: run the daemon in"), "{outcome}");
    drop((beside, daemon));
    engine.kill().unwrap();
    engine.wait().unwrap();
}

/// `host` is what people call it, and who says so means it.
#[test]
fn the_host_is_a_target_by_its_name() {
    let daemon = Daemon::start();
    let dir = Dir::new();
    let words = ["attach", "host", "--match", "tcp:1", "--to", "reject", "--from", "192.0.2.1", "--dry-run"];
    let answer = daemon.cli().json(&words);
    assert_eq!((&answer["target"], &answer["result"]), (&"host".into(), &"attached".into()), "{answer:#}");
    assert_eq!(answer["cookie"], Netns::at(Path::new("/proc/self/ns/net")).cookie());
    daemon.cli().json(&[&words[..], &["--host-netns"]].concat());
    // By any other name it is still to be said.
    let outcome = daemon.cli().run(&[&["attach", "self"], &words[2..]].concat());
    assert!(error(&outcome, 1).contains("host"), "{outcome}");
    let file = dir.join("file.toml");
    std::fs::write(
        &file,
        "[[namespace]]\ntarget = \"host\"\n[[namespace.rule]]\nmatch = [\"tcp:1\"]\nfrom = [\"192.0.2.1\"]\nto = [\"reject\"]\n",
    )
    .unwrap();
    let outcome = daemon.cli().run(&["apply", "--dry-run", file.to_str().unwrap()]);
    assert_eq!(outcome.code(), 5, "{outcome}");
    must(Command::new(binary()).args(["check", file.to_str().unwrap()]));
}
