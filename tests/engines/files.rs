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
    containers_that_share_a_namespace_share_its_rules,
    a_rule_of_attach_that_waits_is_not_taken_over,
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
    // Whoever attaches the same changes nothing; something else is for the file to say.
    assert_eq!(setting.steer("web", &["--follow"])["result"], "waiting");
    let target = engine.target("web");
    let other = ["attach", &target, "--name", "web", "--match", "tcp:1", "--to", "pass", "--follow"];
    let refused = redirector_tests::cli::error(&setting.cli().run(&other), 1);
    assert!(refused.contains("configuration file"), "{refused}");
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
    setting.cli().json(&[
        "attach",
        &target,
        "--name",
        "stays",
        "--match",
        "tcp:81",
        "--to",
        "reject",
        "--no-follow",
    ]);
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

fn containers_that_share_a_namespace_share_its_rules(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    let id = engine.run("web", &[]);
    engine.client(&["create", "--name", "side", "--network", "container:web", engine.image()]);
    let path = setting.daemon.dir().join("file.toml");
    let by_path = format!("path:{}", engine.netns_of("web").path().display());
    let rule = |name: &str, port: u16| {
        format!(
            "[[namespace.rule]]\nname = \"{name}\"\nmatch = [\"tcp:{port}\"]\nto = [\"{}\"]\n",
            setting.proxy.destination()
        )
    };
    // One of them is named another way first, and does not follow.
    let text = format!(
        "[[namespace]]\ntarget = \"{by_path}\"\n{}[[namespace]]\ntarget = \"{}\"\n{}[[namespace]]\ntarget = \"{}\"\n{}",
        rule("stays", 81),
        engine.target("web"),
        rule("web", PORT),
        engine.target("side"),
        rule("web", PORT),
    );
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let apply = || setting.cli().json(&["apply", path]);
    assert_eq!(apply()["changes"].as_array().unwrap().len(), 3);
    assert_eq!(apply()["changes"], json!([]), "one is in force and one waits");
    engine.client(&["start", "side"]);
    setting.eventually("the second container is there", |list| list["waiting"] == json!([]));
    let again = apply();
    assert_eq!(again["changes"], json!([]), "{again:#}");
    let exported = setting.cli().run(&["export"]).success().stdout;
    fs::write(path, &exported).unwrap();
    assert_eq!(apply()["changes"], json!([]), "{exported}");
    assert_eq!(setting.answer("web"), "proxy");
    // It is known which container is which.
    assert_eq!(setting.daemon.log_with(&["another container"]), Vec::<String>::new());
    let list = setting.list();
    assert_eq!(list["namespaces"].as_array().unwrap().len(), 1, "{list:#}");
    assert_eq!(list["namespaces"][0]["rules"][1]["origin"], "file", "{list:#} {id}");
}

fn a_rule_of_attach_that_waits_is_not_taken_over(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    engine.client(&["create", "--name", "off", engine.image()]);
    let target = engine.target("off");
    setting
        .cli()
        .json(&["attach", &target, "--name", "web", "--match", "tcp:99", "--to", "pass", "--follow"]);
    let path = setting.daemon.dir().join("file.toml");
    fs::write(&path, format!("[[namespace]]\ntarget = \"{target}\"\n[[namespace.rule]]\nname = \"web\"\nmatch = [\"tcp:98\"]\nto = [\"reject\"]\n")).unwrap();
    let path = path.to_str().unwrap();
    let before = setting.list();
    let outcome = setting.cli().run(&["apply", path]);
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(outcome.stderr.contains("there is one of `attach`"), "{outcome}");
    assert_eq!(setting.list(), before);
    assert_eq!(setting.cli().json(&["apply", path, "--prune"])["changes"].as_array().unwrap().len(), 1);
}
