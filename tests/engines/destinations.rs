//! Destinations in containers.

use redirector_tests::{
    server::{Place, Server, echo},
    topology::at,
};

use crate::{
    for_each_engine,
    setting::{PORT, Setting},
};

for_each_engine!(
    a_destination_in_a_container_is_dialled_there_and_found_again,
    a_destination_in_a_steered_container_and_a_loop_of_two,
    a_destination_goes_with_a_name_that_moves,
);

/// A server in a container, on its loopback only.
pub(crate) fn inside(setting: &Setting, container: &str, name: &str, port: u16) -> Server {
    let address = at(std::net::Ipv4Addr::LOCALHOST.into(), port);
    Server::start(Place::In(&setting.engine.netns_of(container)), name, &[address], echo)
}

fn a_destination_in_a_container_is_dialled_there_and_found_again(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.engine.run("proxy", &[]);
    let (web, to) =
        (setting.engine.target("web"), format!("{}/127.0.0.1:9000", setting.engine.target("proxy")));
    let first = inside(&setting, "proxy", "first", 9000);
    setting.cli().json(&["attach", &web, "--name", "web", "--match", "tcp:8080", "--to", &to]);
    assert_eq!(setting.answer("web"), "first");
    drop(first);
    setting.engine.client(&["stop", "-t", "0", "proxy"]);
    let state = |state: &'static str| {
        setting.eventually(state, |list| list["namespaces"][0]["rules"][0]["state"] == state);
    };
    state("down");
    // What `on_unavailable` says by default.
    assert_eq!(setting.answer("web"), "refused");
    // Under the same name, and it need not be the same container.
    setting.engine.client(&["rm", "proxy"]);
    setting.engine.run("proxy", &[]);
    let _second = inside(&setting, "proxy", "second", 9000);
    state("up");
    assert_eq!(setting.answer("web"), "second");
}

fn a_destination_in_a_steered_container_and_a_loop_of_two(kind: &'static str) {
    let setting = Setting::new(kind);
    for container in ["one", "two", "via"] {
        setting.engine.run(container, &[]);
    }
    // To a container's address, dialled inside one of them.
    let attach = |from: &str, inside: &str, to: &str| {
        let to = format!("{}/{}", setting.engine.target(inside), setting.engine.socket_of(to, PORT));
        let from = setting.engine.target(from);
        setting.cli().json(&["attach", &from, "--name", "web", "--match", "tcp:8080", "--to", &to]);
    };
    setting.cli().json(&[
        "attach",
        &setting.engine.target("two"),
        "--name",
        "web",
        "--match",
        "tcp:*",
        "--to",
        "original",
    ]);
    attach("one", "two", "two");
    let address = setting.engine.socket_of("two", PORT);
    let _app = Server::start(Place::In(&setting.engine.netns_of("two")), "app", &[address], echo);
    // Dialled inside `two`, from an address of it: not steered there again.
    assert_eq!(setting.answer("one"), "app");
    // What is dialled in a third container arrives by the bridge: from one to two, and back to one.
    attach("one", "via", "two");
    attach("two", "via", "one");
    assert_eq!(setting.answer("one"), "reset");
    let found = |list: &serde_json::Value| {
        let namespaces = list["namespaces"].as_array().expect("an array");
        namespaces.iter().filter_map(|netns| netns["connections"]["failed"]["loop"].as_u64()).sum::<u64>()
    };
    setting.eventually("the loop is counted", |list| found(list) >= 1);
}

fn a_destination_goes_with_a_name_that_moves(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.engine.run("proxy", &[]);
    let _first = inside(&setting, "proxy", "first", 9000);
    let (web, to) =
        (setting.engine.target("web"), format!("{}/127.0.0.1:9000", setting.engine.target("proxy")));
    let attach = || {
        let attach = ["attach", &web, "--name", "web", "--match", "tcp:8080", "--to", &to];
        setting.cli().json(&attach)["result"].clone()
    };
    assert_eq!(attach(), "attached");
    assert_eq!(setting.answer("web"), "first");
    setting.engine.client(&["rename", "proxy", "old"]);
    setting.engine.run("proxy", &[]);
    let _second = inside(&setting, "proxy", "second", 9000);
    // Whoever says it again means the container that has the name now.
    assert_eq!(attach(), "unchanged");
    assert_eq!(setting.answer("web"), "second");
}
