//! Configuration files that name containers: their rules follow, and wait for those that do not run.

use std::fs;

use serde_json::{Value, json};

use crate::{
    for_each_engine,
    setting::{PORT, Setting},
};

for_each_engine!(
    rules_of_a_file_wait_for_their_container_follow_it_and_end_with_the_file,
    what_follows_is_exported_as_it_was_written,
);

/// Applies rules for one container, as a file.
#[track_caller]
fn apply(setting: &Setting, container: &str, more: &str, to: &str, options: &[&str]) -> Value {
    let path = setting.daemon.dir().join("file.toml");
    let target = setting.engine.target(container);
    let text = format!(
        "[[namespace]]\ntarget = \"{target}\"\n{more}\n[[namespace.rule]]\nname = \"web\"\nmatch = [\"tcp:{PORT}\"]\nto = [\"{to}\"]\n"
    );
    fs::write(&path, text).expect("write the file");
    setting.cli().json(&[&["apply", path.to_str().expect("UTF-8")], options].concat())
}

fn rules_of_a_file_wait_for_their_container_follow_it_and_end_with_the_file(kind: &'static str) {
    let setting = Setting::new(kind);
    let proxy = setting.proxy.destination();
    let engine = &setting.engine;
    engine.client(&["create", "--name", "web", engine.image()]);
    let answer = apply(&setting, "web", "", &proxy, &[]);
    assert_eq!(answer["changes"][0]["cookie"], 0, "{answer:#}");
    let (steered, waiting) = setting.targets();
    assert_eq!((steered, waiting), (vec![], vec![engine.target("web")]));
    assert_eq!(apply(&setting, "web", "", &proxy, &[])["changes"], json!([]), "it waits already");
    engine.client(&["start", "web"]);
    let first = setting.eventually_steered("web", 0);
    assert_eq!(setting.answer("web"), "proxy");
    let list = setting.list();
    let rule = &list["namespaces"][0]["rules"][0];
    assert_eq!((&rule["origin"], &rule["follows"]), (&json!("file"), &json!(engine.target("web"))));
    assert_eq!(apply(&setting, "web", "", &proxy, &[])["changes"], json!([]), "it is in force");
    // What is changed while it waits is in force when it comes back.
    engine.client(&["stop", "-t", "0", "web"]);
    setting.eventually_waiting("web");
    let changed = apply(&setting, "web", "", "reject", &[]);
    assert_eq!(changed["changes"].as_array().unwrap().len(), 1, "{changed:#}");
    engine.client(&["start", "web"]);
    let second = setting.eventually_steered("web", first);
    assert_eq!(setting.answer("web"), "refused");
    // From now on it stays with this namespace.
    let answer = apply(&setting, "web", "follow = false", "reject", &[]);
    assert!(answer["changes"][0]["before"]["follows"].is_string(), "{answer:#}");
    assert!(answer["changes"][0]["after"]["follows"].is_null(), "{answer:#}");
    assert_eq!(setting.list()["namespaces"][0]["cookie"], second);
    engine.client(&["stop", "-t", "0", "web"]);
    setting.eventually_nothing();
    engine.client(&["start", "web"]);
    apply(&setting, "web", "", &proxy, &[]);
    assert_eq!(setting.answer("web"), "proxy");
    engine.client(&["stop", "-t", "0", "web"]);
    setting.eventually_waiting("web");
    let path = setting.daemon.dir().join("file.toml");
    fs::write(&path, "").unwrap();
    let answer = setting.cli().json(&["apply", path.to_str().unwrap()]);
    assert_eq!(answer["changes"][0]["target"], engine.target("web"), "{answer:#}");
    setting.eventually_nothing();
}

fn what_follows_is_exported_as_it_was_written(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.engine.client(&["create", "--name", "later", setting.engine.image()]);
    setting.steer("web", &["--follow"]);
    let target = setting.engine.target("web");
    setting.cli().json(&["attach", &target, "--name", "stays", "--match", "tcp:81", "--to", "reject"]);
    let later = setting.engine.target("later");
    setting
        .cli()
        .json(&["attach", &later, "--name", "waits", "--match", "tcp:82", "--to", "pass", "--follow"]);
    let exported = setting.cli().run(&["export"]).success().stdout;
    let path = setting.daemon.dir().join("file.toml");
    fs::write(&path, &exported).unwrap();
    let path = path.to_str().unwrap();
    let answer = setting.cli().json(&["apply", path]);
    assert_eq!((&answer["changes"], &answer["unchanged"]), (&json!([]), &json!(3)), "{exported}\n{answer:#}");
    assert_eq!(setting.cli().run(&["export"]).success().stdout, exported);
    // All three are the file's now, and go with it.
    let origins: Vec<_> = setting.list()["namespaces"][0]["rules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rule| rule["origin"].clone())
        .collect();
    assert_eq!(origins, ["file", "file"]);
    fs::write(path, "").unwrap();
    setting.cli().json(&["apply", path]);
    setting.eventually_nothing();
}
