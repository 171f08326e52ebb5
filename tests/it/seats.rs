//! Clients of the control socket that ask slowly, or nothing, or do not take the answer: others are served.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use redirector_tests::{HANG, daemon::Daemon, dir::Dir, eventually::eventually, http::get, world::World};
use serde_json::json;

use crate::SECOND;

/// Connections that may be there at once, one that waits for a place, and some that the daemon has besides.
const MOST: usize = 64 + 1 + 8;

const HEAD: &str = "GET /v1/namespaces HTTP/1.1\r\nHost: x\r\n";

fn connect(socket: &Path, words: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    // It may be let go at once.
    drop(stream.write_all(words.as_bytes()));
    stream
}

/// A client that has had an answer and keeps its connection.
fn idle(socket: &Path) -> UnixStream {
    let mut stream = connect(socket, &format!("{HEAD}\r\n"));
    stream.set_read_timeout(Some(HANG)).unwrap();
    assert!(stream.read(&mut [0; 16]).unwrap() > 0, "an answer");
    stream
}

/// With so many clients of a kind there, others are served at once, and the daemon has not more than its bound.
#[track_caller]
fn assert_served_beside(kind: impl Fn(&Path) -> UnixStream) {
    let world = World::new();
    world.steer("http", "tcp:80", "reject");
    let fds = world.daemon.fds_at_rest();
    let clients: Vec<_> = (0..200).map(|_| kind(world.daemon.socket())).collect();
    world.steer("more", "tcp:81", "reject");
    assert_eq!(world.rule("more")["name"], "more");
    let now = world.daemon.fds().len();
    assert!(now <= fds + MOST, "{now} fds, {fds} before");
    drop(clients);
    world.daemon.eventually_has_fds(fds);
}

#[test]
fn clients_that_say_nothing_keep_nobody_from_being_served() {
    assert_served_beside(|socket| connect(socket, ""));
}

#[test]
fn clients_that_ask_half_a_question_keep_nobody_from_being_served() {
    assert_served_beside(|socket| connect(socket, HEAD));
}

#[test]
fn clients_whose_body_does_not_come_keep_nobody_from_being_served() {
    let head = "POST /v1/apply HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{";
    assert_served_beside(|socket| connect(socket, head));
}

#[test]
fn clients_that_keep_their_connections_keep_nobody_from_being_served() {
    assert_served_beside(idle);
}

#[test]
fn clients_that_do_not_take_their_answers_keep_nobody_from_being_served() {
    assert_served_beside(|socket| {
        let stream = connect(socket, "");
        stream.set_nonblocking(true).unwrap();
        let questions = format!("{HEAD}\r\n").repeat(100);
        // Until nothing is taken any more.
        while let Ok(count) = (&stream).write(questions.as_bytes()) {
            if count < questions.len() {
                break;
            }
        }
        stream
    });
}

#[test]
fn more_clients_at_once_than_there_are_places_are_all_served() {
    let world = World::new();
    let socket = world.daemon.socket();
    thread::scope(|scope| {
        for _ in 0..300 {
            scope.spawn(|| assert_eq!(get(socket, "/v1/namespaces").status, 200));
        }
    });
}

#[test]
fn a_head_that_does_not_end_is_refused() {
    let daemon = Daemon::start();
    let mut stream = connect(daemon.socket(), HEAD);
    stream.set_read_timeout(Some(HANG)).unwrap();
    while stream.write_all(b"X-More: and more\r\n").is_ok() {}
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(get(daemon.socket(), "/v1/namespaces").status, 200);
}

#[test]
fn a_daemon_that_ends_waits_for_no_client() {
    let mut daemon = Daemon::start();
    let socket = daemon.socket().to_owned();
    let _silent: Vec<_> = (0..100).map(|_| connect(&socket, HEAD)).collect();
    let _idle = idle(&socket);
    daemon.stop();
}

/// They are worked on to their end: a namespace is not left half changed.
#[test]
fn clients_that_go_away_while_they_are_served_keep_their_places() {
    const CLIENTS: usize = 150;
    // What an engine is asked for one of them: its version, and the container.
    const QUESTIONS: usize = 2;
    let rule = json!({ "name": "http", "match": ["tcp:80"], "to": ["reject"] });
    let attach = json!({ "target": "docker:web", "rule": rule }).to_string();
    let dir = Dir::new();
    // An engine that says nothing until it ends.
    let engine = UnixListener::bind(dir.join("docker")).unwrap();
    let asked = Arc::new(Mutex::new(Some(Vec::new())));
    let daemon = Daemon::with(&[&format!("--docker-socket={}", dir.join("docker").display())]);
    let fds = daemon.fds_at_rest();
    let asking = Arc::clone(&asked);
    thread::spawn(move || {
        for connection in engine.incoming().map_while(Result::ok) {
            if let Some(all) = asking.lock().unwrap().as_mut() {
                all.push(connection);
            }
        }
    });
    for _ in 0..CLIENTS {
        let length = attach.len();
        let head = format!("POST /v1/attach HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        drop(connect(daemon.socket(), &(head + &attach)));
    }
    let worked_on = || asked.lock().unwrap().as_ref().map_or(0, Vec::len);
    eventually("as many are worked on as there are places", SECOND, || {
        let now = worked_on();
        if now >= 64 * QUESTIONS { Ok(()) } else { Err(now) }
    });
    let now = daemon.fds_at_rest();
    assert_eq!(worked_on(), 64 * QUESTIONS);
    assert!(now <= fds + MOST + 64 * QUESTIONS, "{now} fds, {fds} before");
    drop(asked.lock().unwrap().take());
    assert_eq!(get(daemon.socket(), "/v1/namespaces").status, 200);
    daemon.eventually_has_fds(fds);
}
