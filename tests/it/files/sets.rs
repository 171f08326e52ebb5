//! Several files: each is a set of its own, and none touches what another one has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use redirector_tests::{
    cli::error,
    command::{Outcome, run, run_with_stdin},
    daemon::{Daemon, binary},
    dir::{Dir, unique},
    eventually::eventually,
    netns::Netns,
};
use serde_json::{Value, json};

use super::{file, namespace, own::logged};
use crate::SECOND;

/// The text of a file with rules for one target, each of its own port.
fn text(target: &str, rules: &[(&str, u16, &str)]) -> String {
    let rules = rules
        .iter()
        .map(|(name, port, to)| json!({"name": name, "match": [format!("tcp:{port}")], "to": [to]}));
    file(&[namespace(target, &json!(rules.collect::<Vec<_>>()))])
}

fn write(dir: &Dir, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).expect("write a file");
    path.to_str().expect("UTF-8").to_owned()
}

/// Each rule that is in force or waits, with its set.
#[track_caller]
fn sets(daemon: &Daemon) -> Vec<(String, String)> {
    let list = daemon.cli().json(&["list"]);
    let named = |one: &Value, set: &Value| {
        let set = Path::new(set.as_str().unwrap_or("none")).file_name().map(PathBuf::from);
        let set = set.unwrap_or_default().display().to_string();
        (one["name"].as_str().expect("a name").to_owned(), set)
    };
    let in_force = list["namespaces"].as_array().expect("an array").iter();
    let in_force = in_force.flat_map(|view| view["rules"].as_array().expect("rules"));
    let mut all: Vec<_> = in_force.map(|rule| named(rule, &rule["set"])).collect();
    for view in list["waiting"].as_array().expect("an array") {
        all.extend(view["rules"].as_array().expect("rules").iter().map(|rule| named(rule, &view["set"])));
    }
    all.sort();
    all
}

fn told(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(rule, set)| ((*rule).to_owned(), (*set).to_owned())).collect()
}

#[track_caller]
fn apply(daemon: &Daemon, arguments: &[&str]) -> Outcome {
    daemon.cli().run(&[&["apply"], arguments].concat())
}

#[test]
fn a_file_changes_its_own_rules_and_says_whose_a_rule_is_that_it_cannot_have() {
    let (daemon, dir, one, two) = (Daemon::start(), Dir::new(), Netns::new(), Netns::new());
    let a = write(&dir, "a.toml", &text(&one.target(), &[("a", 80, "reject"), ("b", 81, "reject")]));
    let b = write(&dir, "b.toml", &text(&two.target(), &[("c", 80, "reject")]));
    let more = write(&dir, "more.toml", &text(&one.target(), &[("d", 82, "reject")]));
    apply(&daemon, &[&a]).success();
    let outcome = apply(&daemon, &[&b, &more]).success();
    assert!(outcome.stdout.contains("applied: 2 added, 0 changed, 0 removed, 0 unchanged"), "{outcome}");
    let all = [("a", "a.toml"), ("b", "a.toml"), ("c", "b.toml"), ("d", "more.toml")];
    assert_eq!(sets(&daemon), told(&all));
    // By another path it is the same file.
    std::os::unix::fs::symlink(&a, dir.join("link.toml")).expect("a symbolic link");
    let link = dir.join("link.toml");
    let outcome = apply(&daemon, &[link.to_str().unwrap()]).success();
    assert!(outcome.stdout.contains("0 removed, 2 unchanged"), "{outcome}");
    write(&dir, "a.toml", &text(&one.target(), &[("a", 80, "drop")]));
    let outcome = apply(&daemon, &[&a]).success();
    assert!(outcome.stdout.contains("applied: 0 added, 1 changed, 1 removed, 0 unchanged"), "{outcome}");
    let all = [("a", "a.toml"), ("c", "b.toml"), ("d", "more.toml")];
    assert_eq!(sets(&daemon), told(&all));
    // A rule that another one has, the same and otherwise; in the first place that it is in where both come at once.
    for to in ["reject", "drop"] {
        let twin = write(&dir, "twin.toml", &text(&two.target(), &[("x", 83, "reject"), ("c", 80, to)]));
        for arguments in [&[&*twin][..], &[&b, &twin], &["--prune", &twin]] {
            let outcome = apply(&daemon, arguments);
            let code = if arguments.contains(&&*b) { 2 } else { 1 };
            assert!(error(&outcome, code).contains("nothing is changed"), "{outcome}");
            let place = outcome.stderr.lines().find(|line| line.contains("the set `"));
            let place = place.unwrap_or_else(|| panic!("{outcome}"));
            assert!(place.contains("twin.toml:7:1: error: ") && place.contains("/b.toml`"), "{outcome}");
        }
    }
    assert_eq!(sets(&daemon), told(&all));
    // What `attach` has is the file's from when that says the same.
    let attach = ["attach", &two.target(), "--name", "x", "--match", "tcp:83", "--to", "reject"];
    daemon.cli().json(&attach);
    let own = write(&dir, "own.toml", &text(&two.target(), &[("x", 83, "reject")]));
    let outcome = apply(&daemon, &[&own]).success();
    assert!(outcome.stdout.contains("0 added, 0 changed, 0 removed, 1 unchanged"), "{outcome}");
    // Several files can be one set, whatever they are called.
    let named = ["--set", "team", &own];
    assert!(error(&apply(&daemon, &named), 1).contains("nothing is changed"));
    let outcome = apply(&daemon, &["--replace", "--set", "team", &own, &b]).success();
    assert!(outcome.stdout.contains("applied: 0 added, 0 changed, 2 removed, 2 unchanged"), "{outcome}");
    assert_eq!(sets(&daemon), told(&[("c", "team"), ("x", "team")]));
    for name in ["", "-", "/a"] {
        error(&apply(&daemon, &["--set", name, &own]), 2);
    }
}

/// What nobody has named is a set as well, and leaves to others what they have.
#[test]
fn an_export_that_is_applied_changes_nothing_and_takes_nothing() {
    let (dir, one) = (Dir::new(), Netns::new());
    let own = write(&dir, "redirector.toml", &text(&one.target(), &[("own", 80, "reject")]));
    let daemon = Daemon::with(&["--config", &own]);
    let attach = ["attach", &one.target(), "--name", "mine", "--match", "tcp:81", "--to", "reject"];
    daemon.cli().json(&attach);
    let absent = write(&dir, "absent.toml", &text("netns:rdt-none", &[("later", 80, "reject")]));
    apply(&daemon, &["--wait", &absent]).success();
    let from_stdin = |text: &str| run_with_stdin(&mut daemon.cli().command(&["apply", "-"]), text);
    let exported = daemon.cli().run(&["export"]).success().stdout;
    for _ in 0..2 {
        let outcome = from_stdin(&exported).success();
        assert!(outcome.stdout.contains("applied: 0 added, 0 changed, 0 removed, 3 unchanged"), "{outcome}");
        assert_eq!(daemon.cli().run(&["export"]).success().stdout, exported);
        let all = [("later", "absent.toml"), ("mine", "-"), ("own", "redirector.toml")];
        assert_eq!(sets(&daemon), told(&all));
    }
    // What it had without a name goes without it, and nothing else.
    let outcome = from_stdin("").success();
    assert!(outcome.stdout.contains("applied: 0 added, 0 changed, 1 removed, 0 unchanged"), "{outcome}");
    let all = [("later", "absent.toml"), ("own", "redirector.toml")];
    assert_eq!(sets(&daemon), told(&all));
    // Nor does the daemon's own file take what others have.
    daemon.signal(Signal::SIGHUP);
    logged(&daemon, &["SIGHUP: the file is applied", "changes=0"]);
    assert_eq!(sets(&daemon), told(&all));
}

/// As `/etc/redirector.toml` and `/etc/redirector.d` are, at boot: half of what they name is missing.
#[test]
fn a_directory_is_whatever_files_are_there_and_what_they_name_comes_as_it_appears() {
    let (dir, there) = (Dir::new(), Netns::new());
    let names: Vec<_> = (0..2).map(|_| format!("rdt-{}", unique())).collect();
    let later = |index: usize| format!("netns:{}", names[index]);
    let config = dir.join("redirector.d");
    fs::create_dir(&config).expect("a directory");
    let files = [dir.join("redirector.toml").display().to_string(), config.display().to_string()];
    let write = |name: &str, text: &str| fs::write(config.join(name), text).expect("write a file");
    write("10-there.toml", &text(&there.target(), &[("there", 80, "reject")]));
    write("20-later.toml", &text(&later(0), &[("first", 80, "reject"), ("second", 81, "reject")]));
    write("30-later.toml", &text(&later(1), &[("third", 80, "reject")]));
    write("old.toml.bak", "not a file of ours");
    let mut options = ["--optional-config", &files[0], "--config", &files[1]];
    let daemon = Daemon::with_log_read(&options);
    let all = [
        ("first", "20-later.toml"),
        ("second", "20-later.toml"),
        ("there", "10-there.toml"),
        ("third", "30-later.toml"),
    ];
    assert_eq!(sets(&daemon), told(&all));
    let targets = |key: &str| {
        let list = daemon.cli().json(&["list"]);
        let all = list[key].as_array().expect("an array").iter().map(|view| view["target"].clone());
        all.collect::<Vec<_>>()
    };
    assert_eq!(targets("namespaces"), [json!(there.target())]);
    for index in 0..2 {
        logged(&daemon, &["WARN", "its rules wait", &later(index), "-later.toml", "line=2"]);
    }
    let _first = Netns::named(&names[0]);
    eventually("the first of those that were missing is steered", SECOND * 3, || {
        let now = targets("namespaces");
        if now.len() == 2 { Ok(()) } else { Err(now) }
    });
    // A file goes, one comes, and one is there now that need not be.
    fs::remove_file(config.join("20-later.toml")).expect("remove it");
    write("40-new.toml", &text(&there.target(), &[("new", 82, "reject")]));
    fs::write(&files[0], text(&there.target(), &[("plain", 83, "reject")])).expect("write it");
    daemon.signal(Signal::SIGHUP);
    logged(&daemon, &["SIGHUP: the file is applied", "changes=4", "waiting=1"]);
    let all = [
        ("new", "40-new.toml"),
        ("plain", "redirector.toml"),
        ("there", "10-there.toml"),
        ("third", "30-later.toml"),
    ];
    assert_eq!(sets(&daemon), told(&all));
    fs::remove_file(&files[0]).expect("remove it");
    // One that is broken is told with its place, and keeps all of them from being applied.
    write("40-new.toml", "[[namespace]]\ntarget = \"web\"\n");
    daemon.signal(Signal::SIGHUP);
    logged(&daemon, &["ERROR", "40-new.toml", "line=2"]);
    logged(&daemon, &["SIGHUP: nothing is changed", "problems="]);
    assert_eq!(sets(&daemon), told(&all));
    fs::remove_file(config.join("40-new.toml")).expect("remove it");
    // The same by hand, of a single one of them.
    let one = config.join("10-there.toml").display().to_string();
    assert!(apply(&daemon, &[&one]).success().stdout.contains("1 unchanged"));
    let outcome = apply(&daemon, &[&files[1]]).success();
    assert!(outcome.stdout.contains("0 added, 0 changed, 1 removed, 2 unchanged"), "{outcome}");
    daemon.signal(Signal::SIGHUP);
    logged(&daemon, &["SIGHUP: the file is applied", "changes=1"]);
    assert_eq!(sets(&daemon), told(&[("there", "10-there.toml"), ("third", "30-later.toml")]));
    drop(daemon);
    // A directory that has to be there is not.
    options[3] = "/nonexistent/redirector.d";
    let socket = dir.join("control.sock");
    let outcome = run(Command::new(binary()).arg("run").args(options).arg("--socket").arg(socket));
    assert_eq!(outcome.code(), 1, "{outcome}");
    assert!(outcome.stderr.contains("/nonexistent/redirector.d"), "{outcome}");
}

#[test]
fn the_log_says_what_was_done_rule_by_rule_and_by_whom() {
    let (daemon, dir, one) = (Daemon::with_log_read(&[]), Dir::new(), Netns::new());
    let path = write(&dir, "a.toml", &text(&one.target(), &[("a", 80, "reject"), ("b", 81, "reject")]));
    apply(&daemon, &[&path]).success();
    write(&dir, "a.toml", &text(&one.target(), &[("a", 80, "drop")]));
    apply(&daemon, &[&path]).success();
    let attach = ["attach", &one.target(), "--name", "mine", "--match", "tcp:82", "--to", "reject"];
    daemon.cli().json(&attach);
    daemon.cli().json(&["detach", &one.target(), "--rule", "mine"]);
    for words in [
        &["rule=a", "added", "tcp:80 to reject"][..],
        &["rule=a", "changed", "to reject -> drop"],
        &["rule=b", "removed", "tcp:81 to reject"],
        &["rule=mine", "Attached", "tcp:82 to reject"],
        &["detach", "mine"],
    ] {
        let lines = logged(&daemon, &[&[&*one.target()], words].concat());
        assert!(lines.iter().all(|line| line.contains("by=uid 0 pid ")), "{lines:#?}");
    }
}
