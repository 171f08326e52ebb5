//! Containers as targets.

use redirector_tests::{client::answer, scale, topology::at};
use serde_json::json;

use crate::{
    for_each_engine,
    setting::{PORT, Setting, cookie},
};

for_each_engine!(
    a_container_is_found_by_name_by_id_and_by_the_beginning_of_its_id,
    containers_that_share_a_namespace_are_one_namespace,
    a_container_without_an_address_is_found,
    what_comes_through_a_published_port_is_steered,
    without_follow_death_ends_the_rule,
    containers_in_the_place_of_others_are_not_steered,
    exec_takes_a_container,
);

fn a_container_is_found_by_name_by_id_and_by_the_beginning_of_its_id(kind: &'static str) {
    let setting = Setting::new(kind);
    let id = setting.engine.run("web", &[]);
    assert_eq!(setting.answer("web"), "refused");
    let attached = setting.steer("web", &["--no-follow"]);
    assert_eq!(attached["target"], setting.engine.target("web"));
    let greeting = setting.visit("web");
    assert_eq!(greeting.server, "proxy");
    for name in [&*id, &id[..12], &id[..5]] {
        let again = setting.steer(name, &["--no-follow"]);
        assert_eq!((&again["result"], cookie(&again)), (&json!("unchanged"), cookie(&attached)), "{name}");
        let list = setting.cli().json(&["list", &setting.engine.target(name)]);
        assert_eq!(list["namespaces"][0]["container"], id, "{list:#}");
    }
    let path = format!("path:{}", setting.engine.netns_of("web").path().display());
    assert_eq!(setting.cli().json(&["list", &path])["namespaces"][0]["cookie"], attached["cookie"]);
    let detached = setting.cli().json(&["detach", &setting.engine.target(&id[..12])]);
    assert_eq!(detached["rules"], json!(["web"]));
    assert_eq!(setting.answer("web"), "refused");
    setting.eventually_nothing();
}

#[test]
fn a_container_of_a_user_is_found_by_its_process_and_followed() {
    let setting = Setting::new("rootless-podman");
    let loopback = at(std::net::Ipv4Addr::LOCALHOST.into(), PORT);
    setting.engine.run("web", &["--network", "none"]);
    let before = cookie(&setting.steer("web", &["--follow"]));
    assert_eq!(answer(&setting.engine.netns_of("web"), loopback), "proxy");
    setting.engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_steered("web", before);
    assert_eq!(answer(&setting.engine.netns_of("web"), loopback), "proxy");
}

fn containers_that_share_a_namespace_are_one_namespace(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("pod", &[]);
    setting.engine.run("web", &["--network", "container:pod"]);
    let (pod, web) = (setting.steer("pod", &["--no-follow"]), setting.steer("web", &["--no-follow"]));
    assert_eq!(cookie(&pod), cookie(&web));
    assert_eq!(web["result"], "unchanged");
    assert_eq!(setting.targets().0, [setting.engine.target("pod")]);
    // It lives as long as one of them.
    let address = setting.engine.socket_of("pod", PORT);
    setting.cli().json(&["detach", &setting.engine.target("web")]);
    assert_eq!(answer(setting.engine.netns(), address), "refused");
}

fn a_container_without_an_address_is_found(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("none", &["--network", "none"]);
    setting.engine.client(&["network", "create", "other"]);
    setting.engine.run("user", &["--network", "other"]);
    setting.steer("none", &["--no-follow"]);
    setting.steer("user", &["--no-follow"]);
    let inside = setting.engine.netns_of("none");
    assert_eq!(answer(&inside, at(std::net::Ipv4Addr::LOCALHOST.into(), PORT)), "proxy");
    assert_eq!(setting.visit("user").server, "proxy");
    setting.engine.client(&["rm", "--force", "none", "user"]);
    setting.eventually_nothing();
    setting.engine.client(&["network", "rm", "other"]);
}

fn what_comes_through_a_published_port_is_steered(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &["--publish", "127.0.0.1:18080:8080"]);
    setting.steer("web", &["--no-follow"]);
    let published = at(std::net::Ipv4Addr::LOCALHOST.into(), 18080);
    assert_eq!(answer(setting.engine.netns(), published), "proxy");
}

fn without_follow_death_ends_the_rule(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.steer("web", &["--no-follow"]);
    let _open = setting.open("web");
    for _ in 0..3 {
        setting.engine.client(&["restart", "-t", "0", "web"]);
        setting.eventually_nothing();
        assert_eq!(setting.answer("web"), "refused");
    }
}

/// Which inode the next container's namespace has depends on all who make namespaces meanwhile; mostly it is one that was free a
/// moment before. `it/death.rs` has one that certainly is the same.
fn containers_in_the_place_of_others_are_not_steered(kind: &'static str) {
    let setting = Setting::new(kind);
    for _ in 0..scale::often() / 5 {
        setting.engine.run("web", &[]);
        setting.steer("web", &["--no-follow"]);
        assert_eq!(setting.answer("web"), "proxy");
        setting.engine.client(&["rm", "--force", "web"]);
        setting.eventually_nothing();
        setting.engine.run("next", &[]);
        assert_eq!(setting.answer("next"), "refused");
        setting.eventually_nothing();
        setting.engine.client(&["rm", "--force", "next"]);
    }
}

fn exec_takes_a_container(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    let target = setting.engine.target("web");
    let show = ["exec", &target, "--match", "tcp:8080", "--", "sh", "-c", "echo $LISTEN_FDNAMES"];
    let shown = setting.cli().run(&show).success().stdout;
    assert!(shown.starts_with(&format!("{kind}=web/rule-1/ipv4")), "{shown}");
    setting.eventually_nothing();
    // And without a daemon.
    let alone = redirector_tests::cli::Cli::new(std::path::Path::new("/nowhere/control.sock"));
    let option = setting.engine.option();
    let shown = alone.run(&[&["exec", &option], &show[1..]].concat()).success().stdout;
    assert!(shown.starts_with(&format!("{kind}=web/rule-1/ipv4")), "{shown}");
}
