//! What is missing is waited for, and what is there is steered meanwhile.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use redirector_tests::{
    cli::error,
    client::answer,
    command::must,
    daemon::Daemon,
    dir::{Dir, unique},
    eventually::{at_intervals, eventually},
    fake_engine::{Answer, Body, engine, inspected, json, status, version},
    netns::Netns,
    server::Server,
    topology::at,
};
use serde_json::{Value, json};

use crate::SECOND;

/// Rules of a file for one target.
fn namespace(target: &str, keys: &str, rules: &[(&str, u16, &str)]) -> String {
    let rules = rules.iter().map(|(name, port, to)| {
        format!("[[namespace.rule]]\nname = \"{name}\"\nmatch = [\"tcp:{port}\"]\nto = [\"{to}\"]\n")
    });
    format!("[[namespace]]\ntarget = \"{target}\"\n{keys}\n{}", rules.collect::<String>())
}

/// What `list` says of all that waits: each target with the reason.
#[track_caller]
fn waiting(daemon: &Daemon) -> Vec<(String, String)> {
    let list = daemon.cli().json(&["list"]);
    let text = |view: &Value, key: &str| view[key].as_str().expect("a text").to_owned();
    let views = list["waiting"].as_array().expect("an array").iter();
    views.map(|view| (text(view, "target"), text(view, "why"))).collect()
}

/// The names of the rules that are in force in a namespace; none where it is not steered.
#[track_caller]
fn in_force(daemon: &Daemon, netns: &Netns) -> Vec<String> {
    let list = daemon.cli().json(&["list"]);
    let namespaces = list["namespaces"].as_array().expect("an array").iter();
    let mut here = namespaces.filter(|view| view["inode"] == netns.inode());
    let rules = here.next().and_then(|view| view["rules"].as_array()).cloned().unwrap_or_default();
    rules.iter().map(|rule| rule["name"].as_str().expect("a name").to_owned()).collect()
}

/// Waits until these rules, and no others, are in force in a namespace. Never are some of them without the others.
#[track_caller]
fn eventually_in_force(daemon: &Daemon, netns: &Netns, rules: &[&str]) {
    eventually("its rules are in force", SECOND * 5, || {
        let now = in_force(daemon, netns);
        assert!(now.is_empty() || now == rules, "all in one switch: {now:?}");
        if now == rules { Ok(()) } else { Err((now, waiting(daemon))) }
    });
}

/// Who answers at a port of the loopback address in a namespace.
#[track_caller]
fn answer_in(netns: &Netns, port: u16) -> String {
    netns.ip("link set lo up");
    answer(netns, at(Ipv4Addr::LOCALHOST.into(), port))
}

/// A mount of a namespace's file, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    #[track_caller]
    fn of(netns: &Netns, path: &Path) -> Self {
        fs::write(path, "").expect("a place to mount it");
        must(Command::new("mount").arg("--bind").arg(netns.path()).arg(path));
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        must(Command::new("umount").arg(&self.0));
        fs::remove_file(&self.0).expect("remove it");
    }
}

/// A file, until it is dropped.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // It may be another one's by now, which is busy.
        drop(fs::remove_file(&self.0));
    }
}

/// A machine that has just booted.
#[test]
fn the_half_of_a_file_that_is_there_is_steered_and_the_rest_comes_as_it_appears() {
    let (there, of_container) = (Netns::new(), Netns::of_process());
    let (dir, proxy) = (Dir::new(), Server::here("proxy"));
    let (name, path, socket) = (format!("rdt-{}", unique()), dir.join("later"), dir.join("docker"));
    let to = proxy.destination();
    let targets = [format!("netns:{name}"), format!("path:{}", path.display()), "docker:web".to_owned()];
    let [by_name, by_path, by_engine] = targets.each_ref().map(String::as_str);
    let text = [
        namespace(by_name, "", &[("http", 80, &to), ("other", 81, "reject")]),
        namespace(by_path, "", &[("http", 80, &to)]),
        namespace(&there.target(), "", &[("http", 80, &to)]),
        namespace(by_engine, "", &[("http", 80, &to)]),
    ];
    let file = dir.join("redirector.toml");
    fs::write(&file, text.concat()).expect("write the file");
    let socket_option = format!("--docker-socket={}", socket.display());
    let daemon = Daemon::with_log_read(&["--config", file.to_str().expect("UTF-8"), &socket_option]);
    // It is ready when the half that is there is steered.
    assert_eq!(answer_in(&there, 80), "proxy");
    let whys = waiting(&daemon);
    for (target, why) in targets.iter().zip(["there is no `/run/netns/", "there is no", "No such file"]) {
        let waits = whys.iter().filter(|(one, _)| one == target);
        assert_eq!(waits.clone().count(), 1, "{whys:?}");
        assert!(waits.clone().all(|(_, told)| told.contains(why)), "{target}: {whys:?}");
        assert_eq!(daemon.log_with(&["WARN", "wait", target, why, "line="]).len(), 1, "{:#?}", daemon.log());
    }
    let exported = daemon.cli().run(&["export"]).success().stdout;
    assert!(targets.iter().all(|target| exported.contains(target)), "{exported}");
    // What is wrong is still refused, and nothing is changed by it.
    fs::write(dir.join("wrong.toml"), namespace("path:/etc/passwd", "", &[("http", 80, "reject")])).unwrap();
    for options in [&[][..], &["--wait"]] {
        let wrong = dir.join("wrong.toml");
        let apply = [&["apply", wrong.to_str().expect("UTF-8")], options].concat();
        error(&daemon.cli().run(&apply), 1);
    }
    assert_eq!(waiting(&daemon), whys);
    // Each comes by itself.
    let named = Netns::named(&name);
    eventually_in_force(&daemon, &named, &["http", "other"]);
    assert_eq!([answer_in(&named, 80), answer_in(&named, 81)], ["proxy", "refused"]);
    let mounted = Netns::new();
    let _mount = Mount::of(&mounted, &path);
    eventually_in_force(&daemon, &mounted, &["http"]);
    let container = inspected(of_container.pid());
    engine(&socket, move |path| match path {
        path if path.ends_with("/version") => version(),
        path if path.contains("/events") => Answer::Events(Body::default()),
        _ => json(&container),
    });
    eventually("the engine is asked again", SECOND * 6, || {
        let now = in_force(&daemon, &of_container);
        if now == ["http"] { Ok(()) } else { Err(waiting(&daemon)) }
    });
    assert_eq!(waiting(&daemon), []);
    let list = daemon.cli().json(&["list", by_name]);
    assert_eq!(list["namespaces"][0]["rules"][0]["origin"], "file", "{list:#}");
    // And the file changes nothing any more.
    let applied = daemon.cli().json(&["apply", file.to_str().expect("UTF-8")]);
    assert_eq!((&applied["changes"], &applied["unchanged"]), (&json!([]), &json!(5)), "{applied:#}");
}

/// By a name of `ip netns`, by a mount of one's own, and by a symbolic link.
#[test]
fn a_namespace_that_is_made_again_has_all_of_its_rules_in_one_switch_if_it_is_followed() {
    let (daemon, dir) = (Daemon::start(), Dir::new());
    let (name, mount, link) = (format!("rdt-{}", unique()), dir.join("mount"), dir.join("link"));
    let mut made = Netns::named(&name);
    let mut mounted = Some(Mount::of(&made, &mount));
    symlink(made.path(), &link).expect("a symbolic link");
    let targets = [
        (format!("netns:{name}"), ["http-1", "more-1"]),
        (format!("path:{}", mount.display()), ["http-2", "more-2"]),
        (format!("path:{}", link.display()), ["http-3", "more-3"]),
    ];
    let rules: Vec<_> = {
        let mut rules: Vec<_> = targets.iter().flat_map(|(_, rules)| *rules).collect();
        rules.sort_unstable();
        rules
    };
    for ((target, rules), port) in targets.iter().zip([80, 82, 84]) {
        for (rule, port) in rules.iter().zip([port, port + 1]) {
            let matching = format!("tcp:{port}");
            let attach =
                ["attach", target, "--name", rule, "--match", &matching, "--to", "reject", "--follow"];
            daemon.cli().json(&attach);
        }
    }
    // The same as a file says it.
    let exported = daemon.cli().run(&["export"]).success().stdout;
    assert_eq!(exported.matches("follow = true").count(), 3, "{exported}");
    let file = dir.join("file.toml");
    fs::write(&file, exported).expect("write the file");
    let apply = || daemon.cli().json(&["apply", file.to_str().expect("UTF-8")])["changes"].clone();
    assert_eq!(apply(), json!([]));
    for _ in 0..2 {
        drop(mounted.take());
        drop(made);
        eventually("all of them wait", SECOND * 3, || {
            let now = waiting(&daemon);
            if now.len() == 3 { Ok(()) } else { Err(now) }
        });
        assert_eq!(apply(), json!([]), "they wait already");
        made = Netns::named(&name);
        mounted = Some(Mount::of(&made, &mount));
        eventually("they are in force in the next one", SECOND * 5, || {
            let now = in_force(&daemon, &made);
            for (_, pair) in &targets {
                let count = pair.iter().filter(|rule| now.iter().any(|one| one == *rule)).count();
                assert!(count != 1, "both rules of a target in one switch: {now:?}");
            }
            if now == rules { Ok(()) } else { Err((now, waiting(&daemon))) }
        });
    }
    // The name goes to another namespace, and the one before lives on: the rules go with the name.
    let _open = made.open();
    must(Command::new("umount").arg("--lazy").arg(made.path()));
    fs::remove_file(made.path()).expect("remove it");
    let next = Netns::named(&name);
    eventually("the rules of the name are in the next one", SECOND * 5, || {
        let now = in_force(&daemon, &next);
        if now == ["http-1", "http-3", "more-1", "more-3"] { Ok(()) } else { Err((now, waiting(&daemon))) }
    });
    daemon.cli().json(&["detach", &targets[0].0]);
    daemon.cli().json(&["detach", &targets[1].0]);
    let list = daemon.cli().json(&["list"]);
    assert_eq!((&list["namespaces"], &list["waiting"]), (&json!([]), &json!([])), "{list:#}");
}

#[test]
fn a_rule_that_does_not_follow_is_not_put_into_the_next_namespace_of_its_name() {
    let daemon = Daemon::start();
    let name = format!("rdt-{}", unique());
    let target = format!("netns:{name}");
    let attach = |rule: &str, options: &[&str]| {
        let attach = ["attach", &target, "--name", rule, "--match", "tcp:80", "--to", "reject"];
        daemon.cli().run(&[&attach, options].concat())
    };
    // It waits once, and belongs to the namespace then.
    assert!(error(&attach("once", &[]), 3).contains(&target));
    let waits = attach("once", &["--wait"]).success();
    assert_eq!(waits.stdout, format!("waiting: rule once until {target} is there\n"));
    for _ in 0..2 {
        let netns = Netns::named(&name);
        if waiting(&daemon).is_empty() {
            at_intervals(5, || assert_eq!(in_force(&daemon, &netns), Vec::<String>::new()));
            attach("once", &[]).success();
        }
        eventually_in_force(&daemon, &netns, &["once"]);
        drop(netns);
        eventually("nothing of it is left", SECOND * 2, || {
            let list = daemon.cli().json(&["list"]);
            if list["namespaces"] == json!([]) { Ok(()) } else { Err(list) }
        });
        assert_eq!(waiting(&daemon), []);
    }
    // What waits can be detached.
    attach("once", &["--wait"]).success();
    attach("more", &["--wait", "--follow"]).success();
    assert_eq!(daemon.cli().json(&["detach", &target, "--rule", "once"])["rules"], json!(["once"]));
    assert_eq!(daemon.cli().json(&["detach", &target])["rules"], json!(["more"]));
    error(&daemon.cli().run(&["detach", &target]), 3);
    // A process is nobody who comes again.
    for target in ["pid:2147483647", "self", "path:/proc/1/ns/net"] {
        for option in ["--wait", "--follow"] {
            let attach = ["attach", target, "--match", "tcp:80", "--to", "reject", option];
            assert!(error(&daemon.cli().run(&attach), 2).contains(option));
        }
    }
}

#[test]
fn apply_refuses_what_is_missing_unless_it_is_to_wait() {
    let (daemon, there, dir) = (Daemon::start(), Netns::new(), Dir::new());
    let name = format!("rdt-{}", unique());
    let targets = [format!("netns:{name}"), format!("path:{}", dir.join("none").display())];
    let to = format!("netns:rdt-{}/127.0.0.1:80", unique());
    let text = [
        namespace(&there.target(), "", &[("there", 80, "reject"), ("down", 81, &to)]),
        namespace(&targets[0], "follow = true", &[("a", 80, "reject")]),
        namespace(&targets[1], "", &[("b", 80, "reject")]),
    ];
    let file = dir.join("file.toml");
    fs::write(&file, text.concat()).expect("write the file");
    let apply = |options: &[&str]| daemon.cli().run(&[&["apply", file.to_str().unwrap()], options].concat());
    let outcome = apply(&[]);
    assert!(error(&outcome, 1).contains("3 problems; nothing is changed"), "{outcome}");
    assert!(targets.iter().all(|target| outcome.stderr.contains(target)), "{outcome}");
    assert_eq!(in_force(&daemon, &there), Vec::<String>::new());
    assert_eq!(apply(&["--wait", "--dry-run"]).code(), 5);
    let outcome = apply(&["--wait"]).success();
    for target in &targets {
        assert!(outcome.stdout.contains(&format!("waiting: target `{target}`: there is no ")), "{outcome}");
    }
    assert!(outcome.stderr.contains("down until"), "{outcome}");
    assert!(outcome.stdout.contains("applied: 4 added, 0 changed, 0 removed, 0 unchanged"), "{outcome}");
    assert_eq!(in_force(&daemon, &there), ["down", "there"]);
    assert_eq!(waiting(&daemon).len(), 2);
    // What waits already, and what is down already, is as the file wants it.
    for options in [&[][..], &["--wait"]] {
        let outcome = apply(options).success();
        assert!(outcome.stdout.contains("applied: 0 added, 0 changed, 0 removed, 4 unchanged"), "{outcome}");
    }
    let exported = daemon.cli().run(&["export"]).success().stdout;
    fs::write(&file, &exported).expect("write the file");
    let outcome = apply(&[]).success();
    assert!(outcome.stdout.contains("applied: 0 added, 0 changed, 0 removed, 4 unchanged"), "{outcome}");
    assert_eq!(daemon.cli().run(&["export"]).success().stdout, exported);
    // And goes with the file.
    fs::write(&file, "").expect("write the file");
    apply(&[]).success();
    assert_eq!(daemon.cli().json(&["list"])["waiting"], json!([]));
    let netns = Netns::named(&name);
    at_intervals(5, || assert_eq!(in_force(&daemon, &netns), Vec::<String>::new()));
}

#[test]
fn a_container_that_its_engine_does_not_know_is_waited_for_when_somebody_says_so() {
    let (dir, of_container) = (Dir::new(), Netns::of_process());
    let (events, exists) = (Body::default(), Arc::new(AtomicBool::new(false)));
    let (stream, is_there, container) = (events.clone(), Arc::clone(&exists), inspected(of_container.pid()));
    engine(&dir.join("docker"), move |path| match path {
        path if path.ends_with("/version") => version(),
        path if path.contains("/events") => Answer::Events(stream.clone()),
        _ if is_there.load(Ordering::Relaxed) => json(&container),
        _ => status("404 Not Found", r#"{"message":"No such container: web"}"#),
    });
    let daemon = Daemon::with_log_read(&[&format!("--docker-socket={}", dir.join("docker").display())]);
    let attach = ["attach", "docker:web", "--name", "http", "--match", "tcp:80", "--to", "reject"];
    let outcome = daemon.cli().run(&attach);
    assert!(error(&outcome, 3).contains("No such container"), "{outcome}");
    assert!(outcome.stderr.contains("--wait"), "{outcome}");
    let outcome = daemon.cli().run(&[&attach[..], &["--wait"]].concat()).success();
    assert_eq!(outcome.stdout, "waiting: rule http until docker:web runs\n");
    eventually("it says why", SECOND, || match &waiting(&daemon)[..] {
        [(_, why)] if why.contains("No such container") => Ok(()),
        other => Err(other.to_vec()),
    });
    exists.store(true, Ordering::Relaxed);
    eventually("its rule is in force", SECOND * 5, || {
        events.say("start");
        let now = in_force(&daemon, &of_container);
        if now == ["http"] { Ok(()) } else { Err(waiting(&daemon)) }
    });
}

/// `ip netns` makes the file first; and whoever knows a process makes a link to it.
#[test]
fn a_name_where_nothing_is_mounted_is_waited_for_and_one_that_leads_to_a_process_is_not_believed() {
    let (daemon, process) = (Daemon::with_log_read(&[]), Netns::of_process());
    let names = [format!("rdt-{}", unique()), format!("rdt-{}", unique())];
    let [empty, link] = names.each_ref().map(|name| Path::new("/run/netns").join(name));
    fs::write(&empty, "").expect("an empty file");
    let places = [&empty, &link].map(|path| Removed(path.clone()));
    let attach = |name: &str| {
        let target = format!("netns:{name}");
        daemon.cli().json(&["attach", &target, "--match", "tcp:80", "--to", "reject", "--wait", "--follow"])
    };
    assert_eq!(names.each_ref().map(|name| attach(name)["result"].clone()), ["waiting", "waiting"]);
    symlink(format!("/proc/{}/ns/net", process.pid()), &link).expect("a symbolic link");
    eventually("both say why", SECOND * 5, || {
        let now = waiting(&daemon);
        let says = |name: &str, word: &str| {
            now.iter().any(|(target, why)| target.ends_with(name) && why.contains(word))
        };
        if says(&names[0], "nothing is mounted") && says(&names[1], "process") { Ok(()) } else { Err(now) }
    });
    let steered = daemon.cli().json(&["list"])["namespaces"].clone();
    drop(places);
    assert_eq!(steered, json!([]));
    let there = Netns::named(&names[0]);
    eventually_in_force(&daemon, &there, &["rule-1"]);
}

#[test]
fn to_attach_a_name_that_is_there_says_what_becomes_other() {
    let (daemon, pod) = (Daemon::start(), Netns::new());
    let target = pod.target();
    let attach = |options: &str| {
        let words = ["attach", &target, "--name", "http"].into_iter().chain(options.split(' '));
        daemon.cli().run(&words.collect::<Vec<_>>()).success().stdout
    };
    let first =
        attach("--match tcp:80 --to 127.0.0.1:1 --priority 10 --from 10.77.0.0/24 --on-unavailable pass");
    assert!(first.starts_with("attached: rule http in "), "{first}");
    let second = attach("--match tcp:80 --to 127.0.0.1:2");
    let (diff, rest) = second.split_once('\n').expect("two lines");
    assert_eq!(
        diff,
        format!(
            "~ {target} http: from 10.77.0.0/24 -> none; on_unavailable pass -> reject; priority 10 -> none; to 127.0.0.1:1 -> 127.0.0.1:2"
        ),
    );
    assert!(rest.starts_with("replaced: rule http in "), "{rest}");
    let again = attach("--match tcp:80 --to 127.0.0.1:2");
    assert!(again.starts_with("unchanged: rule http in "), "{again}");
    let dry = attach("--match tcp:80 --to reject --dry-run");
    assert!(dry.contains("to 127.0.0.1:2 -> reject\nwould be replaced: "), "{dry}");
    let follows = attach("--match tcp:80 --to 127.0.0.1:2 --follow");
    assert!(
        follows.starts_with(&format!("~ {target} http: follows none -> {target}\nreplaced: ")),
        "{follows}"
    );
    // One that waits is replaced as well.
    let later = format!("netns:rdt-{}", unique());
    let wait = |to: &str| {
        let attach = ["attach", &later, "--name", "http", "--match", "tcp:80", "--to", to, "--wait"];
        daemon.cli().run(&attach).success().stdout
    };
    assert_eq!(wait("reject"), format!("waiting: rule http until {later} is there\n"));
    assert!(wait("drop").starts_with(&format!("~ {later} http: to reject -> drop\nwaiting: ")));
}
