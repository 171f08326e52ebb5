//! Sockets that a rule is turned against without its author meaning it: those of peers that sign with TCP-MD5, and what an engine has
//! put into its containers.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
};

use redirector_tests::{
    client::answer,
    exec::PYTHON,
    holder::Holder,
    netns::Netns,
    server::{Place, Server, echo},
    topology::{CLIENT_V4, CLIENT_V6, POD_V4, POD_V6, at},
    world::{World, count},
};
use serde_json::{Value, json};

use super::files::{apply, file, namespace};

const MD5: &str = include_str!("../programs/md5.py");

/// A peer that signs, for as long as it is held.
#[track_caller]
fn md5(netns: &Netns, words: &[&str]) -> Holder {
    netns.enter(|| Holder::start(Command::new(PYTHON).args(["-c", MD5]).args(words)))
}

/// The warnings of an answer that are about such sockets.
fn warnings(answer: &Value) -> Vec<&str> {
    let all = answer["warnings"].as_array().expect("warnings").iter().filter_map(Value::as_str);
    all.filter(|text| text.contains("TCP-MD5") || text.contains("Docker")).collect()
}

#[test]
fn attach_warns_of_listeners_with_tcp_md5_keys_that_the_rule_takes_from() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let to = proxy.destination();
    let clients = [CLIENT_V4.to_string(), CLIENT_V6.to_string()];
    for (host, peer) in
        [("0.0.0.0", &*clients[0]), ("::", &*clients[1]), ("::", "10.77.0.0/24"), ("10.77.0.1", &*clients[0])]
    {
        let _listener = md5(&world.net.pod, &["listen", host, "179", peer]);
        let told = world.steer("all", "tcp:*", &to);
        let [text] = warnings(&told)[..] else { panic!("{host} {peer}: {told:#}") };
        assert!(text.contains(":179 ") && text.contains("--except tcp:179"), "{text}");
        // It is told again while it is so, and by a file.
        assert_eq!(warnings(&world.steer("all", "tcp:*", &to)).len(), 1, "{host} {peer}");
        world.detach();
        let rules = json!([{"name": "all", "match": ["tcp:*"], "to": [to]}]);
        let applied = apply(&world, &file(&[namespace(&world.target(), &rules)]), &[]).success();
        assert!(applied.stderr.contains("rule `all`: a listener there at"), "{applied}");
        apply(&world, "", &[]).success();
    }
}

#[test]
fn a_listener_with_keys_that_no_rule_takes_from_is_no_reason_to_warn() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let to = proxy.destination();
    let _listener = md5(&world.net.pod, &["listen", "0.0.0.0", "179", &CLIENT_V4.to_string()]);
    for rule in [
        "--match tcp:80",
        "--match tcp:* --except tcp:179",
        "--match tcp:* --from 10.99.0.0/16",
        "--match tcp:[fd77::1]:*",
    ] {
        let told = world.attach(&format!("--name all {rule} --to {to}"));
        assert_eq!(warnings(&told), Vec::<&str>::new(), "{rule}");
    }
    // It is refused because somebody wants it to be.
    assert_eq!(warnings(&world.steer("all", "tcp:*", "reject")), Vec::<&str>::new());
    world.steer("bgp", "tcp:179", "pass");
    assert_eq!(warnings(&world.steer("all", "tcp:*", &to)), Vec::<&str>::new());
    // What leaves it alone goes.
    world.cli().run(&["detach", &world.target(), "--rule", "bgp"]).success();
    assert_eq!(warnings(&world.steer("all", "tcp:*", &to)).len(), 1);
}

#[test]
fn a_peer_that_signs_is_steered_and_never_accepted_and_that_is_said() {
    for (host, pod, client) in [("0.0.0.0", POD_V4, CLIENT_V4), ("::", POD_V6, CLIENT_V6)] {
        let (world, proxy) = (World::new(), Server::here("proxy"));
        let (client, pod) = (client.to_string(), at(pod, 179));
        world.steer("all", "tcp:*", &proxy.destination());
        let _listener = md5(&world.net.pod, &["listen", host, "179", &client]);
        let flow = format!("tcp {} -> {pod}", at(client.parse().unwrap(), 40_000));
        let _peer = md5(&world.net.client, &["connect", &pod.ip().to_string(), "179"]);
        let is_steered = |steered: &Value| steered.as_u64() > Some(0);
        let now = world.eventually("its SYN is steered", "/rules/0/counters/steered", is_steered);
        assert_eq!(now["rules"][0]["accepted"], 0, "{now:#}");
        assert_eq!(now["connections"]["accepted"], 0, "{now:#}");
        let list = world.cli().run(&["list"]).success().stdout;
        let line =
            list.lines().find(|line| line.contains("rule all: of ")).unwrap_or_else(|| panic!("{list}"));
        assert!(line.contains("none was accepted") && line.contains("TCP-MD5"), "{list}");
        let explained = world.cli().json(&["explain", &world.target(), &flow]);
        let bystander = &explained["bystanders"][0];
        assert_eq!(bystander["what"], "tcp_md5", "{explained:#}");
        assert_eq!(bystander["address"].as_str().unwrap().parse::<SocketAddr>().unwrap().port(), 179);
        assert!(count(&explained, "/segments_dropped/TCPMD5Unexpected") > 0, "{explained:#}");
        let said = world.cli().run(&["explain", &world.target(), &flow]).success().stdout;
        for part in ["0 were accepted", "TCPMD5Unexpected", "it has a TCP-MD5 key for this client"] {
            assert!(said.contains(part), "{part}: {said}");
        }
        // Of another client, and of another port, nothing is said of the key.
        let other = world.cli().json(&["explain", &world.target(), &flow.replace(":179", ":180")]);
        assert_eq!(other.get("bystanders"), None, "{other:#}");
        drop(_peer);
        assert_eq!(world.answer(at(pod.ip(), 80)), "proxy");
    }
}

#[test]
fn dockers_name_server_in_a_container_is_told_of_where_a_rule_takes_from_it() {
    let (world, proxy) = (World::new(), Server::here("proxy"));
    let own = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 11), 40_053));
    let _dns = Server::start(Place::In(&world.net.pod), "dns", &[own], echo);
    let _udp = world.net.pod.enter(|| UdpSocket::bind((own.ip(), 40_054))).expect("bind");
    let told = world.steer("all", "tcp:*", &proxy.destination());
    let [text] = warnings(&told)[..] else { panic!("{told:#}") };
    assert!(text.contains("127.0.0.11:40053") && text.contains("--except tcp:127.0.0.11:*"), "{text}");
    // So it is.
    assert_eq!(answer(&world.net.pod, own), "proxy");
    let flow = format!("tcp 127.0.0.1:40000 -> {own}");
    let explained = world.cli().json(&["explain", &world.target(), &flow]);
    assert_eq!(explained["bystanders"][0]["what"], "docker_dns", "{explained:#}");
    let told = world
        .attach(&format!("--name all --match tcp:* --except tcp:127.0.0.11:* --to {}", proxy.destination()));
    assert_eq!(warnings(&told), Vec::<&str>::new());
    assert_eq!(answer(&world.net.pod, own), "dns");
    for (matching, to, about) in [
        ("any:*", "reject", &["tcp 127.0.0.11:40053", "udp 127.0.0.11:40054"][..]),
        ("udp:*", "drop", &["udp 127.0.0.11:40054"]),
        ("tcp:127.0.0.11:*", "reject", &["tcp 127.0.0.11:40053"]),
        ("tcp:80", "reject", &[]),
        ("any:*", "pass", &[]),
    ] {
        let told = world.steer("all", matching, to);
        let told = warnings(&told);
        assert_eq!(told.len(), about.len(), "{matching} {to}: {told:?}");
        assert!(about.iter().all(|part| told.iter().any(|text| text.contains(part))), "{told:?}");
    }
}
