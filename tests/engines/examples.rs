//! The files of `docs/examples`, as they are, with containers of the names that they use.

use std::path::{Path, PathBuf};

use redirector_tests::{
    client::{answer, visit},
    netns::Netns,
    server::{Place, Server, echo},
    topology::at,
};
use serde_json::{Value, json};

use crate::setting::Setting;

/// A file, or all of them.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/examples").join(name)
}

/// Applies an example in the place of the one before, which must add so many rules and find nothing to warn of.
#[track_caller]
fn apply(setting: &Setting, name: &str, added: usize) -> Value {
    let path = example(name);
    let path = path.to_str().expect("UTF-8");
    setting.cli().run(&["check", path]).success();
    let answer = setting.cli().json(&["apply", "--set", "example", path]);
    let changes = answer["changes"].as_array().expect("an array");
    assert_eq!(changes.iter().filter(|change| change["before"].is_null()).count(), added, "{answer:#}");
    let again = setting.cli().json(&["apply", "--set", "example", "--dry-run", path]);
    assert_eq!(again["changes"], json!([]), "{again:#}");
    answer
}

/// A server on the loopback address of a container.
fn on_loopback(netns: &Netns, name: &str, port: u16) -> Server {
    let address = "127.0.0.1".parse().expect("an address");
    Server::start(Place::In(netns), name, &[at(address, port)], echo)
}

/// Who answers to a client on the host's side of the bridge.
#[track_caller]
fn answered(setting: &Setting, container: &str, port: u16) -> String {
    answer(setting.engine.netns(), setting.engine.socket_of(container, port))
}

#[test]
fn each_example_does_what_it_says() {
    let setting = Setting::new("docker");
    let engine = &setting.engine;
    for container in ["web", "shop", "proxy", "app1", "app2", "collector", "monitor"] {
        engine.run(container, &[]);
    }
    let (web, shop) = (engine.netns_of("web"), engine.netns_of("shop"));
    let _web = Server::inside(&web, "web", 80);
    let _shop = Server::inside(&shop, "shop", 80);

    // While the proxy is away the containers answer themselves.
    apply(&setting, "transparent-proxy.toml", 2);
    let proxy = on_loopback(&engine.netns_of("proxy"), "proxy", 8080);
    for (container, port) in [("web", 80), ("web", 443), ("shop", 80), ("shop", 443)] {
        setting.eventually("the proxy is reached", |_| answered(&setting, container, port) == "proxy");
    }
    assert_eq!(answer(&shop, at("127.0.0.1".parse().unwrap(), 80)), "shop", "past the proxy");
    drop(proxy);
    setting.eventually("the container answers itself", |_| answered(&setting, "web", 80) == "web");

    // What the file before had is gone.
    let collector = on_loopback(&engine.netns_of("collector"), "collector", 514);
    apply(&setting, "log-collection.toml", 2);
    for app in ["app1", "app2"] {
        let app = engine.netns_of(app);
        let greeting = visit(&app, at("127.0.0.1".parse().unwrap(), 5514)).expect("it is collected");
        assert_eq!(greeting.server, "collector");
    }
    assert_eq!(collector.accepted(), 2);
    assert_eq!(answered(&setting, "web", 443), "refused");

    engine.run("app3", &["--label", "log.collect=true"]);
    let labels = [
        "redirector.enable=true",
        "redirector.rule.web.match=tcp:80",
        "redirector.rule.web.to=docker:proxy/127.0.0.1:8080",
    ];
    let labels: Vec<_> = labels.iter().flat_map(|label| ["--label", label]).collect();
    engine.run("own", &labels);
    let proxy = on_loopback(&engine.netns_of("proxy"), "proxy", 8080);
    apply(&setting, "discovery.toml", 2);
    let to = at("127.0.0.1".parse().unwrap(), 5514);
    assert_eq!(visit(&engine.netns_of("app3"), to).expect("it is collected").server, "collector");
    assert_eq!(answered(&setting, "own", 80), "proxy");
    drop(proxy);

    let monitor = on_loopback(&engine.netns_of("monitor"), "monitor", 9000);
    apply(&setting, "security-audit.toml", 2);
    assert_eq!(["22", "8080"].map(|port| answered(&setting, "web", port.parse().unwrap())), ["monitor"; 2]);
    assert_eq!(answered(&setting, "web", 80), "web");
    assert_eq!(monitor.accepted(), 2);
    let explained = setting.list()["namespaces"][0]["rules"].clone();
    assert!(
        explained
            .as_array()
            .unwrap()
            .iter()
            .any(|rule| rule["name"] == "scanner" && rule["took_nothing"] == true),
        "{explained:#}"
    );

    apply(&setting, "debugging.toml", 1);
    let list = setting.list();
    assert!(list["namespaces"][0]["rules"][0]["follows"].is_null(), "{list:#}");
    engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_nothing();
}

#[test]
fn there_is_no_example_that_is_not_tried() {
    let files = std::fs::read_dir(example("")).expect("list them");
    let names = files.map(|file| file.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".toml")).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "debugging.toml",
            "discovery.toml",
            "log-collection.toml",
            "security-audit.toml",
            "transparent-proxy.toml"
        ]
    );
}
