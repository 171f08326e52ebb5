//! Servers that know nothing of redirector, behind a steered namespace: each row of the table in
//! `docs/hand-off.md`.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use nix::sys::signal::Signal;
use redirector_tests::{
    HANG,
    client::{Conversation, Stop, answer_here, at_once},
    eventually::eventually,
    exec::{Exec, Stage, assert_true_addresses},
    netns::Netns,
    scale::many,
    server::Server,
    topology::{POD_V4, POD_V6, Topology, at},
};

use super::SECOND;

const HAPROXY: &str = include_str!("../programs/haproxy.cfg");
const HAPROXY_TCP: &str = include_str!("../programs/haproxy-tcp.cfg");
const NGINX: &str = include_str!("../programs/nginx.conf");
const ENVOY: &str = include_str!("../programs/envoy.yaml");

/// The line that the documentation gives.
const BIND: &str = "bind fd@{fd4}\n    bind fd@{fd6}";

/// A request over a connection of its own. Gives the client's address and the body.
fn get(to: SocketAddr) -> io::Result<(SocketAddr, String)> {
    let mut stream = TcpStream::connect_timeout(&to, HANG)?;
    stream.set_read_timeout(Some(HANG))?;
    stream.set_write_timeout(Some(HANG))?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: pod\r\nconnection: close\r\n\r\n")?;
    let own = stream.local_addr()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    if head.starts_with("HTTP/1.1 200 ") {
        Ok((own, body.to_owned()))
    } else {
        Err(io::Error::other(head.to_owned()))
    }
}

/// HAProxy writes IPv6 addresses without brackets.
fn pair(client: SocketAddr, original: SocketAddr) -> String {
    format!("{}:{} {}:{}", client.ip(), client.port(), original.ip(), original.port())
}

/// `redirector exec … -- haproxy` with a configuration that the placeholders are filled into.
#[track_caller]
fn haproxy(stage: &Stage, options: &str, configuration: &str) -> Exec {
    let template = stage.program("haproxy.cfg.in", &configuration.replace("BIND", BIND));
    // It is written as the user that HAProxy runs as.
    let folder = stage.dir.join("written");
    fs::create_dir_all(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let file = folder.join("haproxy.cfg");
    let file = file.to_str().unwrap();
    let options = format!("--match tcp:80 --render {template}={file} {options}");
    Exec::start(&mut stage.exec(&options, &["haproxy", "-db", "-f", file]))
}

/// Waits until port 80 of the pod gives an answer to HTTP.
#[track_caller]
fn wait_for_http(client: &Netns) {
    client.enter(|| {
        eventually("the server answers", SECOND * 3, || {
            get(at(POD_V4, 80)).and_then(|_| get(at(POD_V6, 80))).map(drop)
        });
    });
}

#[test]
fn haproxy_sees_and_logs_true_clients_and_original_destinations() {
    for stage in Stage::both() {
        let mut haproxy = haproxy(&stage, "", HAPROXY);
        wait_for_http(&stage.net.client);
        for pod in [POD_V4, POD_V6] {
            let (client, seen) = stage.net.client.enter(|| get(at(pod, 80))).unwrap();
            assert_eq!(seen, pair(client, at(pod, 80)));
            haproxy.expect_line(&seen);
        }
        haproxy.signal(Signal::SIGUSR1);
        assert_eq!(haproxy.code(), 0);
        stage.assert_forgotten();
    }
}

#[test]
fn haproxy_without_any_capability_serves() {
    let stage = Stage::with_daemon();
    let haproxy = haproxy(&stage, "--user nobody", HAPROXY);
    wait_for_http(&stage.net.client);
    let status = fs::read_to_string(format!("/proc/{}/status", haproxy.pid())).unwrap();
    assert!(status.lines().any(|line| line == "CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn nginx_sees_and_logs_true_clients_and_original_destinations() {
    for stage in Stage::both() {
        let dir = stage.dir.path().to_str().unwrap();
        let file = stage.program("nginx.conf", &NGINX.replace("DIR", dir).replace("PORT", "18081"));
        let words = ["nginx", "-p", dir, "-e", "stderr", "-c", &file];
        let mut nginx = Exec::start(&mut stage.exec("--match tcp:80 --listen-as 18081", &words));
        wait_for_http(&stage.net.client);
        // It makes its listeners before its workers, and has them from then on: a worker that dies is replaced.
        for pod in [POD_V4, POD_V6] {
            let (client, seen) = stage.net.client.enter(|| get(at(pod, 80))).unwrap();
            let expected = format!("{} {} {pod} 80", client.ip(), client.port());
            // An IPv6 address in brackets, and nothing else is different.
            assert_eq!(seen.replace(['[', ']'], ""), expected);
            eventually("it is in the access log", SECOND, || {
                let log = fs::read_to_string(format!("{dir}/access.log")).unwrap();
                if log.lines().any(|line| line == seen) { Ok(()) } else { Err(log) }
            });
        }
        nginx.signal(Signal::SIGHUP);
        wait_for_http(&stage.net.client);
        // Not SIGQUIT: told only once, a worker that is about to start may miss it.
        assert_eq!(nginx.end(Signal::SIGTERM), 0);
        stage.assert_forgotten();
    }
}

/// `redirector exec … -- nginx`, with this in the place of `daemon off;`. Gives the file that has its master's number, too.
#[track_caller]
fn nginx(stage: &Stage, daemon: &str, port: &str) -> (Exec, String) {
    let dir = stage.dir.path().to_str().unwrap();
    let configuration = NGINX.replace("daemon off;", daemon).replace("DIR", dir).replace("PORT", port);
    let file = stage.program("nginx.conf", &configuration);
    // By its path: it starts its successor by what it was called itself.
    let by_path = "exec \"$(command -v nginx)\" \"$@\"";
    let words = ["sh", "-c", by_path, "sh", "-p", dir, "-e", "stderr", "-c", &file];
    let options = format!("--match tcp:80 --accept-within 2s --listen-as {port}");
    let nginx = Exec::start(&mut stage.exec(&options, &words));
    wait_for_http(&stage.net.client);
    (nginx, format!("{dir}/nginx.pid"))
}

#[track_caller]
fn master(pid_file: &str) -> nix::unistd::Pid {
    let text = eventually("its master has said its number", SECOND, || fs::read_to_string(pid_file));
    nix::unistd::Pid::from_raw(text.trim().parse().unwrap())
}

#[test]
fn an_nginx_that_is_upgraded_while_it_runs_goes_on_to_serve() {
    for stage in Stage::both() {
        // It takes the signal only when its parent has ended.
        let (mut cmd, pid_file) = nginx(&stage, "daemon on;", "18083");
        cmd.expect_on_stderr("its listeners");
        let old = master(&pid_file);
        let signal = |pid, signal| nix::sys::signal::kill(pid, signal).unwrap();
        signal(old, Signal::SIGUSR2);
        let new = eventually("the new master has taken its place", SECOND * 2, || {
            let now = fs::read_to_string(&pid_file).unwrap_or_default();
            let now = now.trim().parse().map(nix::unistd::Pid::from_raw).ok();
            now.filter(|now| *now != old).ok_or("the old one is there")
        });
        wait_for_http(&stage.net.client);
        signal(old, Signal::SIGTERM);
        eventually("the old master has ended", SECOND * 3, || {
            let is_there = std::path::Path::new(&format!("/proc/{old}")).exists();
            if is_there { Err("it is there") } else { Ok(()) }
        });
        for pod in [POD_V4, POD_V6] {
            let (client, seen) = stage.net.client.enter(|| get(at(pod, 80))).unwrap();
            let expected = format!("{} {} {pod} 80", client.ip(), client.port());
            assert_eq!(seen.replace(['[', ']'], ""), expected);
        }
        if stage.daemon.is_some() {
            assert_eq!(cmd.code(), 0);
            eventually("it is seen who holds them", SECOND * 3, || {
                let list = stage.cli().json(&["list"]);
                let holders = list["namespaces"][0]["rules"][0]["lease"]["holders"].as_array().cloned();
                let is_new = holders.is_some_and(|holders| {
                    holders.contains(&new.as_raw().into()) && !holders.contains(&old.as_raw().into())
                });
                if is_new { Ok(()) } else { Err(list) }
            });
        }
        signal(new, Signal::SIGTERM);
        assert_eq!(cmd.code(), 0);
        eventually("the rule is gone", SECOND * 3, || {
            stage.net.client.enter(|| get(at(POD_V4, 80))).err().ok_or("it answers")
        });
        stage.assert_forgotten();
    }
}

#[test]
fn an_nginx_that_puts_itself_in_the_background_serves() {
    for stage in Stage::both() {
        let (mut cmd, pid_file) = nginx(&stage, "daemon on;", "18084");
        cmd.expect_on_stderr("its listeners");
        let master = master(&pid_file);
        let (_, seen) = stage.net.client.enter(|| get(at(POD_V6, 80))).unwrap();
        assert!(!seen.is_empty());
        nix::sys::signal::kill(master, Signal::SIGTERM).unwrap();
        assert_eq!(cmd.code(), 0);
        stage.assert_forgotten();
    }
}

#[test]
fn envoy_sees_and_logs_true_clients_and_original_destinations() {
    let program = std::env::var("ENVOY").unwrap_or("envoy".into());
    for stage in Stage::both() {
        let file = stage.program("envoy.yaml", &ENVOY.replace("PORT", "18082"));
        // Two workers, each with listening sockets of its own.
        let words = [
            &program,
            "-c",
            &file,
            "--concurrency",
            "2",
            "--disable-hot-restart",
            "--file-flush-interval-msec",
            "50",
        ];
        let mut envoy = Exec::start(&mut stage.exec("--match tcp:80 --listen-as 18082", &words));
        wait_for_http(&stage.net.client);
        for pod in [POD_V4, POD_V6] {
            let (client, body) = stage.net.client.enter(|| get(at(pod, 80))).unwrap();
            assert_eq!(body, "envoy");
            envoy.expect_line(&format!("{client} {}", at(pod, 80)));
        }
        assert_eq!(envoy.end(Signal::SIGTERM), 0);
        stage.assert_forgotten();
    }
}

#[test]
fn a_socket_activated_python_server_sees_true_clients_and_original_destinations() {
    for stage in Stage::both() {
        let _server = stage.serve("", "python");
        for pod in [POD_V4, POD_V6] {
            let mut conversation = Conversation::open(&stage.net.client, at(pod, 80)).unwrap();
            let greeting = conversation.greeting().unwrap();
            assert_eq!(greeting.server, "python");
            assert_true_addresses(&greeting, conversation.stream().local_addr().unwrap(), at(pod, 80));
            conversation.finish().unwrap();
        }
    }
}

/// What became of many connections from four threads, each of which had to be answered with its own addresses.
#[track_caller]
fn results(client: &Netns) -> BTreeMap<String, usize> {
    const THREADS: usize = 4;
    let each = at_once(client, THREADS, |number| {
        let to = at([POD_V4, POD_V6][number % 2], 80);
        let one = |_| match get(to) {
            Ok((client, seen)) if seen == pair(client, to) => "true addresses".to_owned(),
            Ok((_, seen)) => seen,
            Err(error) => error.to_string(),
        };
        (0..many() / THREADS).map(one).collect::<Vec<_>>()
    });
    let mut results = BTreeMap::new();
    for one in each.into_iter().flatten() {
        *results.entry(one).or_insert(0) += 1;
    }
    results
}

#[test]
fn many_connections_through_haproxy_come_to_the_same_by_hand_off_and_directly() {
    let stage = Stage::with_daemon();
    let handed_off = {
        let mut haproxy = haproxy(&stage, "", HAPROXY);
        wait_for_http(&stage.net.client);
        let results = results(&stage.net.client);
        assert_eq!(haproxy.end(Signal::SIGUSR1), 0);
        results
    };
    stage.assert_forgotten();
    let direct = {
        let net = Topology::new();
        let bind = "bind 0.0.0.0:80\n    bind [::]:80 v6only";
        let file = stage.program("direct.cfg", &HAPROXY.replace("BIND", bind));
        let mut haproxy = net.pod.enter(|| Exec::start(Command::new("haproxy").args(["-db", "-f", &file])));
        wait_for_http(&net.client);
        let results = results(&net.client);
        assert_eq!(haproxy.end(Signal::SIGUSR1), 0);
        results
    };
    assert_eq!(handed_off, direct);
    assert_eq!(handed_off, BTreeMap::from([("true addresses".to_owned(), many())]));
}

#[test]
fn when_haproxy_ends_under_load_open_connections_finish_and_new_ones_get_what_on_unavailable_says() {
    let stage = Stage::with_daemon();
    let (_app, backend) = (Server::inside(&stage.net.pod, "app", 80), Server::here("backend"));
    let configuration = HAPROXY_TCP.replace("SERVER", &backend.destination());
    for (option, meanwhile) in [("reject", "refused"), ("pass", "app")] {
        let mut haproxy = haproxy(&stage, &format!("--on-unavailable {option}"), &configuration);
        stage.eventually_answers("backend");
        let mut open: Vec<_> = [POD_V4, POD_V6, POD_V4, POD_V6]
            .into_iter()
            .map(|pod| {
                let mut conversation = Conversation::open(&stage.net.client, at(pod, 80)).unwrap();
                assert_eq!(conversation.greeting().unwrap().server, "backend");
                conversation
            })
            .collect();
        let (done, client, asked) = (AtomicBool::new(false), &stage.net.client, AtomicUsize::new(0));
        let ask = &|pod| {
            let mut answers = BTreeMap::new();
            while !done.load(Ordering::Relaxed) {
                *answers.entry(answer_here(at(pod, 80))).or_insert(0) += 1;
                asked.fetch_add(1, Ordering::Relaxed);
            }
            answers
        };
        let answers = thread::scope(|scope| {
            let stop = Stop(&done);
            let clients = [POD_V4, POD_V6].map(|pod| scope.spawn(move || client.enter(|| ask(pod))));
            eventually("there is load", SECOND, || match asked.load(Ordering::Relaxed) {
                200.. => Ok(()),
                few => Err(few),
            });
            // It closes its listeners and goes on with what it has.
            haproxy.signal(Signal::SIGUSR1);
            stage.eventually_answers(meanwhile);
            for conversation in &mut open {
                conversation.echo("in progress").unwrap();
            }
            assert_eq!(stage.answers(), [meanwhile, meanwhile]);
            for conversation in open {
                conversation.finish().unwrap();
            }
            assert_eq!(haproxy.code(), 0);
            stage.eventually_answers("app");
            drop(stop);
            clients.map(|client| client.join().unwrap())
        });
        println!("{option}: {answers:?}");
        // What waited in the queue of a listener when it was closed is reset.
        let allowed = ["backend", "reset", "closed", "app", meanwhile];
        for answers in answers {
            assert!(answers.keys().all(|one| allowed.contains(&&**one)), "{option}: {answers:?}");
        }
        stage.assert_forgotten();
    }
}
