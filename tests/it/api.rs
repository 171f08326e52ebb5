//! The API as others use it: HTTP by hand, no client of ours.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
};

use redirector_tests::{
    HANG,
    http::{exchange, get, post},
    server::Server,
    topology::{POD_V4, POD_V6, at},
    world::World,
};
use serde_json::{Value, json};

#[track_caller]
fn assert_error(answer: &redirector_tests::http::Answer, status: u16, code: &str, naming: &str) {
    assert_eq!(answer.status, status, "{answer:#?}");
    assert_eq!(answer.body["schema"], 1, "{answer:#?}");
    assert_eq!(answer.body["error"]["code"], code, "{answer:#?}");
    let message = answer.body["error"]["message"].as_str().expect("a message");
    assert!(message.contains(naming) && !message.contains('\n'), "must name {naming}: {answer:#?}");
}

#[test]
fn attach_list_and_detach_work_by_hand() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let socket = world.daemon.socket();
    let target = world.target();
    let body = json!({
        "target": target,
        "rule": { "name": "http", "match": ["tcp:80"], "to": [proxy.destination()] },
    });
    let answer = post(socket, "/v1/attach", &body.to_string());
    assert_eq!(answer.status, 200, "{answer:#?}");
    let expected = json!({
        "schema": 1, "result": "attached", "dry_run": false, "target": target,
        "cookie": world.net.pod.cookie(), "rule": "http", "warnings": [], "foreign_programs": [],
        "existing_connections": 0,
    });
    assert_eq!(answer.body, expected);
    for pod in [POD_V4, POD_V6] {
        assert_eq!(world.answer(at(pod, 80)), "proxy");
    }
    let answer = get(socket, "/v1/namespaces");
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert_eq!(answer.body["namespaces"][0]["rules"][0]["name"], "http", "{answer:#?}");
    let answer = post(socket, "/v1/detach", &json!({ "target": target, "rule": "http" }).to_string());
    assert_eq!(answer.status, 200, "{answer:#?}");
    assert_eq!(answer.body["steered"], false, "{answer:#?}");
    assert_eq!(world.answer(at(POD_V4, 80)), "refused");
}

#[test]
fn the_list_has_every_field_that_is_documented() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    world.steer("http", "tcp:80", &proxy.destination());
    world.visit(at(POD_V4, 80));
    world.eventually_at_rest();
    let body = get(world.daemon.socket(), "/v1/namespaces").body;
    let is = |pointer: &str, kind: fn(&Value) -> bool| {
        let value = body.pointer(pointer).unwrap_or_else(|| panic!("no {pointer}: {body:#}"));
        assert!(kind(value), "{pointer} is {value}");
    };
    for number in [
        "/schema",
        "/namespaces/0/cookie",
        "/namespaces/0/inode",
        "/namespaces/0/program/id",
        "/namespaces/0/program/link",
        "/namespaces/0/counters/unmatched",
        "/namespaces/0/rules/0/counters/steered",
        "/namespaces/0/rules/0/counters/passed",
        "/namespaces/0/rules/0/counters/rejected",
        "/namespaces/0/rules/0/counters/dropped",
        "/namespaces/0/rules/0/counters/bypassed",
        "/namespaces/0/rules/0/counters/unavailable",
        "/namespaces/0/connections/active",
        "/namespaces/0/connections/lingering",
        "/namespaces/0/connections/accepted",
        "/namespaces/0/connections/relayed",
        "/namespaces/0/connections/bytes_in",
        "/namespaces/0/connections/bytes_out",
        "/namespaces/0/connections/bytes_lost",
        "/namespaces/0/connections/bytes_lost_to_clients",
        "/namespaces/0/drift/listeners_revived",
        "/namespaces/0/drift/slots_restored",
        "/namespaces/0/drift/links_restored",
    ] {
        is(number, Value::is_u64);
    }
    for text in [
        "/namespaces/0/target",
        "/namespaces/0/state",
        "/namespaces/0/listeners/0/family",
        "/namespaces/0/listeners/0/address",
        "/namespaces/0/rules/0/name",
        "/namespaces/0/rules/0/origin",
        "/namespaces/0/rules/0/match/0",
        "/namespaces/0/rules/0/to/0",
        "/namespaces/0/rules/0/on_unavailable",
        "/namespaces/0/rules/0/connect_timeout",
        "/namespaces/0/rules/0/idle_timeout",
        "/namespaces/0/rules/0/state",
    ] {
        is(text, Value::is_string);
    }
    is("/namespaces/0/listeners/0/healthy", Value::is_boolean);
    is("/namespaces/0/foreign_programs", Value::is_array);
    is("/namespaces/0/rules/0/counters/unavailable_reasons", Value::is_object);
    is("/namespaces/0/connections/failed", Value::is_object);
    is("/draining", Value::is_array);
}

#[test]
fn a_wrong_request_is_answered_with_what_is_wrong_and_changes_nothing() {
    let world = World::new();
    let socket = world.daemon.socket();
    let target = world.target();
    world.steer("http", "tcp:80", "reject");
    let before = world.list();
    let rule = json!({ "match": ["tcp:80"], "to": ["reject"] });
    let attach = |body: Value| post(socket, "/v1/attach", &body.to_string());
    assert_error(&post(socket, "/v1/attach", ""), 400, "usage", "");
    assert_error(&post(socket, "/v1/attach", "{"), 400, "usage", "");
    assert_error(&post(socket, "/v1/attach", "[]"), 400, "usage", "");
    assert_error(&attach(json!({ "target": target })), 400, "usage", "rule");
    assert_error(&attach(json!({ "rule": rule })), 400, "usage", "target");
    assert_error(&attach(json!({ "target": 7, "rule": rule })), 400, "usage", "");
    assert_error(&attach(json!({ "target": "nowhere", "rule": rule })), 400, "usage", "nowhere");
    assert_error(&attach(json!({ "target": target, "rule": rule, "force": true })), 400, "usage", "force");
    let with = |key: &str, value: Value| {
        let mut rule = rule.clone();
        rule[key] = value;
        attach(json!({ "target": target, "rule": rule }))
    };
    assert_error(&with("match", json!([])), 400, "usage", "match");
    assert_error(&with("match", json!(["sctp:53"])), 400, "usage", "sctp:53");
    assert_error(&with("match", json!("tcp:80")), 400, "usage", "");
    assert_error(&with("to", json!([])), 400, "usage", "destination");
    assert_error(&with("to", json!(["reject", "pass"])), 400, "usage", "pass");
    assert_error(&with("name", json!("-x")), 400, "usage", "-x");
    assert_error(&with("on_unavailable", json!("maybe")), 400, "usage", "maybe");
    assert_error(&with("connect_timeout", json!("soon")), 400, "usage", "soon");
    assert_error(&with("connect_timeout", json!("0s")), 400, "usage", "0s");
    assert_error(&with("connect_timeout", json!(5)), 400, "usage", "");
    assert_error(&with("colour", json!("red")), 400, "usage", "colour");
    let detach = |body: Value| post(socket, "/v1/detach", &body.to_string());
    assert_error(&detach(json!({})), 400, "usage", "target");
    assert_error(&detach(json!({ "target": target, "rule": "no" })), 404, "not_found", "no");
    assert_error(&detach(json!({ "target": "netns:rdt-none" })), 404, "not_found", "rdt-none");
    assert_error(&get(socket, "/v1/namespaces?target=nowhere"), 400, "usage", "nowhere");
    assert_error(&get(socket, "/v1/namespaces?target=netns:rdt-none"), 404, "not_found", "rdt-none");
    assert_error(&get(socket, "/v2/namespaces"), 404, "not_found", "/v2/namespaces");
    assert_error(&get(socket, "/"), 404, "not_found", "/");
    assert_error(&get(socket, "/v1/attach"), 404, "not_found", "/v1/attach");
    assert_error(&post(socket, "/v1/namespaces", "{}"), 404, "not_found", "/v1/namespaces");
    assert_eq!(world.list(), before);
}

#[test]
fn what_is_not_http_harms_nobody() {
    let world = World::new();
    let socket = world.daemon.socket();
    for nonsense in ["\r\n\r\n", "GET\r\n\r\n", "\0\0\0\0\r\n\r\n", "hello\n\n"] {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Whatever it says to that, it ends.
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    // Too much of everything.
    let mut stream = UnixStream::connect(socket).unwrap();
    drop(stream.write_all(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).as_bytes()));
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = "POST /v1/attach HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    // It takes no gigabyte of an attach.
    let memory = world.daemon.anonymous_kib();
    drop((0..64).try_for_each(|_| stream.write_all(&vec![b' '; 1 << 20])));
    let grown = world.daemon.anonymous_kib() - memory;
    assert!(grown < 16 << 10, "a body took {grown} KiB");
    // Clients that say nothing, and one that goes away in the middle.
    let silent: Vec<_> = (0..50).map(|_| UnixStream::connect(socket).unwrap()).collect();
    drop(stream);
    let answer = exchange(socket, "GET /v1/namespaces HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(answer.status, 200, "{answer:#?}");
    drop(silent);
}

#[test]
fn a_client_that_hangs_up_leaves_nothing_half_done() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let body = json!({
        "target": world.target(),
        "rule": { "name": "http", "match": ["tcp:80"], "to": [proxy.destination()] },
    })
    .to_string();
    let mut stream = UnixStream::connect(world.daemon.socket()).unwrap();
    let length = body.len();
    let head = format!("POST /v1/attach HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    drop(stream);
    // Changes take turns: when this one is done, so is the other, if it was begun at all.
    world.attach("--name second --match tcp:81 --to reject");
    let rules = world.pod()["rules"].clone();
    let names: Vec<_> = rules.as_array().unwrap().iter().map(|rule| rule["name"].as_str().unwrap()).collect();
    let expected = if names.contains(&"http") { "proxy" } else { "refused" };
    println!("{names:?}");
    assert_eq!(world.answer(at(POD_V4, 80)), expected);
}

#[test]
fn the_socket_is_for_its_owner_alone() {
    let world = World::new();
    let mode = fs::metadata(world.daemon.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}
