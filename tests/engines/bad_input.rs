//! What names no container that can be steered. Nothing changes.

use redirector_tests::cli::error;

use crate::{for_each_engine, setting::Setting};

for_each_engine!(what_names_no_container_is_refused_and_nothing_changes);

fn what_names_no_container_is_refused_and_nothing_changes(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    engine.run("web", &[]);
    engine.client(&["create", "--name", "created", engine.image()]);
    engine.run("hosted", &["--network", "host"]);
    setting.steer("web", &["--no-follow"]);
    let before = setting.list();
    let fds = setting.daemon.fds_at_rest();
    let refused = |target: &str, code: i32, words: &[&str]| {
        let outcome =
            setting.cli().run(&["attach", target, "--match", "tcp:80", "--to", "pass", "--no-follow"]);
        let said = error(&outcome, code);
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{target}: {words:?}: {outcome}");
        assert!(said.contains(target), "{said}");
        outcome
    };
    let target = |name: &str| engine.target(name);
    refused(&target("library/web"), 2, &["image"]);
    refused(&target("/web"), 2, &[&target("web")]);
    refused("web", 2, &["`docker:web` or `podman:web` or `netns:web`"]);
    refused(&target("nosuch"), 3, &["o such container", "nosuch"]);
    refused(&target(&"0".repeat(64)), 3, &["o such container"]);
    refused(&target("created"), 3, &["its state is `created`", "hint: start it"]);
    refused(&target("hosted"), 1, &["host's own network namespace", "--host-netns"]);
    // So many containers that two ids begin alike: after 17 it is certain.
    let ids: Vec<_> = (0..17)
        .map(|number| engine.client(&["create", "--name", &format!("more{number}"), engine.image()]))
        .collect();
    let begins = |prefix: char| ids.iter().filter(|id| id.starts_with(prefix)).count();
    let prefix = "0123456789abcdef".chars().find(|digit| begins(*digit) > 1).expect("17 ids, 16 digits");
    refused(&target(&prefix.to_string()), 1, &[]);
    setting.engine.client(&[&["rm"], &ids.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat());
    // The destination, too.
    let to = format!("{}/127.0.0.1:80", target("nosuch"));
    let outcome = setting.cli().run(&["attach", &target("web"), "--match", "tcp:80", "--to", &to]);
    assert!(error(&outcome, 3).contains("nosuch"), "{outcome}");
    // A container that does not exist is not waited for unless somebody says so.
    let nosuch = setting.cli().run(&["attach", &target("nosuch"), "--match", "tcp:80", "--to", "pass"]);
    assert!(error(&nosuch, 3).contains("nosuch") && nosuch.stderr.contains("--wait"), "{nosuch}");
    let follow = setting.cli().run(&["attach", "self", "--match", "tcp:80", "--to", "pass", "--follow"]);
    assert!(error(&follow, 2).contains("--follow"), "{follow}");

    assert_eq!(setting.list(), before);
    setting.daemon.eventually_has_fds(fds);
}
