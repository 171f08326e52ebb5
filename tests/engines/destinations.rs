//! Destinations in containers.

use redirector_tests::{
    client::answer,
    eventually::eventually,
    server::{Place, Server, echo},
    topology::at,
};

use crate::{
    AT_ONCE, for_each_engine,
    setting::{PORT, Setting},
};

for_each_engine!(
    a_destination_in_a_container_is_dialled_there_and_found_again,
    a_destination_in_a_steered_container_and_a_loop_of_two,
);

/// A server in a container, on its loopback only.
fn inside(setting: &Setting, container: &str, name: &str, port: u16) -> Server {
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
    for container in ["one", "two"] {
        setting.engine.run(container, &[]);
    }
    let attach = |from: &str, to: &str| {
        let to = format!("{}/{}", setting.engine.target(to), setting.engine.socket_of(to, PORT));
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
    attach("one", "two");
    let address = setting.engine.socket_of("two", PORT);
    let _app = Server::start(Place::In(&setting.engine.netns_of("two")), "app", &[address], echo);
    // Dialled inside `two`, from an address of it: not steered there again.
    assert_eq!(setting.answer("one"), "app");
    attach("two", "one");
    eventually("the loop is reset", AT_ONCE, || {
        let answer = answer(setting.engine.netns(), setting.engine.socket_of("one", PORT));
        if answer == "reset" || answer == "app" { Ok(()) } else { Err(answer) }
    });
}
