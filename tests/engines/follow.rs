//! `--follow`: a rule goes where its container goes.

use std::thread;

use redirector_tests::{client::answer, eventually::eventually, scale};
use serde_json::json;

use crate::{
    AT_ONCE,
    destinations::inside,
    for_each_engine,
    setting::{PORT, Setting, cookie},
};

for_each_engine!(
    a_rule_follows_its_container_when_it_is_restarted,
    a_rule_waits_for_a_container_that_is_stopped,
    a_rule_follows_a_name_to_another_container_and_says_so,
    a_name_that_moves_to_another_container_takes_the_rule_along,
    a_rule_follows_an_id_whatever_the_name,
    a_rule_that_follows_takes_no_other_rules_place,
    a_paused_container_and_one_without_network_stay_steered,
    a_container_that_was_only_created_is_steered_when_it_starts,
    a_detached_rule_does_not_come_back,
    a_rule_whose_destination_is_missing_holds_up_no_other,
    a_rule_that_follows_two_names_says_what_was_said_last,
    a_stopped_container_of_a_pod_that_lives_can_be_detached,
    a_rule_leaves_a_namespace_that_lives_on_without_its_container,
    an_id_goes_on_where_a_name_has_gone_elsewhere,
    a_rule_that_waits_can_be_ended_where_the_container_runs,
    a_rule_without_a_name_that_is_said_twice_is_one_rule,
    attach_without_follow_ends_following,
    a_container_is_followed_unless_somebody_says_otherwise,
    a_container_that_does_not_exist_yet_can_be_waited_for,
    a_restart_of_the_engine_is_survived,
    many_containers_start_and_go_at_once,
);

fn a_rule_follows_its_container_when_it_is_restarted(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    let mut cookie = cookie(&setting.steer("web", &["--follow"]));
    for _ in 0..3 {
        let _open = setting.open("web");
        setting.engine.client(&["restart", "-t", "0", "web"]);
        cookie = setting.eventually_steered("web", cookie);
        assert_eq!(setting.visit("web").server, "proxy");
    }
    let list = setting.eventually("only the new namespace is steered", |list| {
        list["namespaces"].as_array().is_some_and(|all| all.len() == 1)
    });
    let rule = &list["namespaces"][0]["rules"][0];
    assert_eq!((&rule["name"], &rule["follows"]), (&json!("web"), &json!(setting.engine.target("web"))));
    assert_eq!(setting.daemon.log_with(&["another container"]), Vec::<String>::new());
}

fn a_rule_waits_for_a_container_that_is_stopped(kind: &'static str) {
    let setting = Setting::new(kind);
    let id = setting.engine.run("web", &[]);
    let before = cookie(&setting.steer("web", &["--follow"]));
    setting.engine.client(&["stop", "-t", "0", "web"]);
    setting.eventually_waiting("web");
    let list = setting.eventually("it says why", |list| {
        list["waiting"][0]["why"]
            .as_str()
            .is_some_and(|why| why.contains("not running: its state is `exited`"))
    });
    let waiting = &list["waiting"][0];
    assert_eq!(
        (&waiting["container"], &waiting["rules"][0]["name"]),
        (&json!(id), &json!("web")),
        "{list:#}"
    );
    // Its name still names it.
    assert_eq!(setting.cli().json(&["list", &setting.engine.target("web")])["waiting"], list["waiting"]);
    let text = setting.cli().run(&["list"]).success().stdout;
    assert!(text.contains(": waiting: ") && text.contains(&id[..12]), "{text}");
    setting.engine.client(&["start", "web"]);
    setting.eventually_steered("web", before);
    assert_eq!(setting.visit("web").server, "proxy");
}

fn a_rule_follows_a_name_to_another_container_and_says_so(kind: &'static str) {
    let setting = Setting::new(kind);
    let first = setting.engine.run("web", &[]);
    let before = cookie(&setting.steer("web", &["--follow"]));
    setting.engine.client(&["rm", "--force", "web"]);
    setting.eventually_waiting("web");
    let second = setting.engine.run("web", &[]);
    setting.eventually_steered("web", before);
    assert_eq!(setting.visit("web").server, "proxy");
    assert_eq!(setting.list()["namespaces"][0]["container"], second);
    let said = setting.daemon.eventually_says(&["another container", &first, &second]);
    assert_eq!(said.len(), 1, "{said:#?}");
}

fn a_name_that_moves_to_another_container_takes_the_rule_along(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    let before = cookie(&setting.steer("web", &["--follow"]));
    setting.engine.client(&["rename", "web", "old"]);
    // It is the same namespace, and nobody else has the name.
    assert_eq!(setting.visit("old").server, "proxy");
    let mut open = setting.open("old");
    setting.engine.run("web", &[]);
    setting.eventually_steered("web", before);
    assert_eq!(setting.visit("web").server, "proxy");
    eventually("the other container is left alone", AT_ONCE, || {
        let answer = setting.answer("old");
        if answer == "refused" { Ok(()) } else { Err(answer) }
    });
    open.echo("still here").expect("what was relayed goes on");
    open.finish().expect("to its end");
}

fn a_rule_follows_an_id_whatever_the_name(kind: &'static str) {
    let setting = Setting::new(kind);
    let id = setting.engine.run("web", &[]);
    let before = cookie(&setting.steer(&id[..12], &["--follow"]));
    setting.engine.client(&["rename", "web", "old"]);
    setting.engine.run("web", &[]);
    setting.engine.client(&["restart", "-t", "0", "old"]);
    setting.eventually_steered(&id[..12], before);
    assert_eq!(setting.visit("old").server, "proxy");
    assert_eq!(setting.answer("web"), "refused");
}

fn a_rule_that_follows_takes_no_other_rules_place(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("pod", &[]);
    setting.engine.run("web", &[]);
    let pod = setting.engine.target("pod");
    let own = ["attach", &pod, "--name", "web", "--match", "tcp:8080", "--to", "reject"];
    setting.cli().json(&own);
    setting.steer("web", &["--follow"]);
    setting.engine.client(&["rm", "--force", "web"]);
    setting.engine.run("web", &["--network", "container:pod"]);
    let list = setting.eventually("it says why it waits", |list| {
        list["waiting"][0]["why"].as_str().is_some_and(|why| why.contains("another rule of that name"))
    });
    let rules = &list["namespaces"][0]["rules"];
    assert_eq!((&rules[0]["to"], rules.as_array().map(Vec::len)), (&json!(["reject"]), Some(1)), "{list:#}");
    // And takes it when it is free.
    setting.cli().json(&["detach", &pod]);
    setting.eventually_steered("web", 0);
    assert_eq!(setting.visit("pod").server, "proxy");
}

fn a_paused_container_and_one_without_network_stay_steered(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.engine.client(&["pause", "web"]);
    let before = cookie(&setting.steer("web", &["--follow"]));
    assert_eq!(setting.visit("web").server, "proxy", "nobody of the container is needed");
    setting.engine.client(&["unpause", "web"]);
    assert_eq!(setting.visit("web").server, "proxy");

    setting.engine.client(&["network", "create", "other"]);
    setting.engine.run("two", &["--network", "other"]);
    setting.steer("two", &["--follow"]);
    let inside = setting.engine.netns_of("two");
    setting.engine.client(&["network", "disconnect", "other", "two"]);
    let loopback = redirector_tests::topology::at(std::net::Ipv4Addr::LOCALHOST.into(), PORT);
    assert_eq!(answer(&inside, loopback), "proxy");
    setting.engine.client(&["network", "connect", "other", "two"]);
    assert_eq!(setting.visit("two").server, "proxy");
    assert_eq!(cookie(&setting.steer("web", &["--follow"])), before);
    setting.engine.client(&["rm", "--force", "two"]);
    setting.engine.client(&["network", "rm", "other"]);
}

fn a_container_that_was_only_created_is_steered_when_it_starts(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.client(&["create", "--name", "web", setting.engine.image()]);
    let answer = setting.steer("web", &["--follow"]);
    assert_eq!((&answer["result"], cookie(&answer)), (&json!("waiting"), 0));
    let dry = setting.cli().run(&[
        "attach",
        &setting.engine.target("web"),
        "--match",
        "tcp:1",
        "--to",
        "pass",
        "--no-follow",
    ]);
    assert_eq!(dry.code(), 3, "{dry}");
    assert!(dry.stderr.contains("its state is `created`") && dry.stderr.contains("--follow"), "{dry}");
    setting.engine.client(&["start", "web"]);
    setting.eventually_steered("web", 0);
    assert_eq!(setting.visit("web").server, "proxy");
}

fn a_detached_rule_does_not_come_back(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.steer("web", &["--follow"]);
    let target = setting.engine.target("web");
    setting.cli().json(&["detach", &target]);
    setting.engine.client(&["restart", "-t", "0", "web"]);
    assert_eq!(setting.answer("web"), "refused");
    setting.steer("web", &["--follow"]);
    // What is heard of one that comes later has been heard of all.
    setting.engine.run("marker", &[]);
    let mut marker = cookie(&setting.steer("marker", &["--follow"]));
    let mut all_is_heard = || {
        setting.engine.client(&["restart", "-t", "0", "marker"]);
        marker = setting.eventually_steered("marker", marker);
    };
    setting.engine.client(&["stop", "-t", "0", "web"]);
    setting.eventually("its rule waits", |list| list["waiting"][0]["target"] == target);
    let missing = setting.cli().run(&["detach", &target, "--rule", "other"]);
    assert_eq!(missing.code(), 3, "{missing}");
    let detached = setting.cli().json(&["detach", &target, "--rule", "web"]);
    assert_eq!(detached["rules"], json!(["web"]), "{detached:#}");
    setting.engine.client(&["start", "web"]);
    all_is_heard();
    assert_eq!(setting.answer("web"), "refused");
    assert_eq!(setting.targets(), (vec![setting.engine.target("marker")], Vec::new()));
}

fn a_rule_whose_destination_is_missing_holds_up_no_other(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.engine.run("gone", &[]);
    let target = setting.engine.target("web");
    let to = format!("{}/127.0.0.1:9000", setting.engine.target("gone"));
    let attach = ["attach", &target, "--name", "a", "--match", "tcp:8081", "--to", &to, "--follow"];
    setting.cli().json(&attach);
    let before = cookie(&setting.steer("web", &["--follow"]));
    setting.engine.client(&["rm", "--force", "gone"]);
    setting.engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_steered("web", before);
    let list = setting.eventually("both rules are in force", |list| {
        list["namespaces"][0]["rules"].as_array().map(Vec::len) == Some(2)
    });
    let rules = &list["namespaces"][0]["rules"];
    assert_eq!((&rules[0]["state"], &rules[1]["state"]), (&json!("down"), &json!("up")), "{list:#}");
    assert_eq!(setting.visit("web").server, "proxy");
    assert_eq!(answer(setting.engine.netns(), setting.engine.socket_of("web", 8081)), "refused");
    // It comes up as any other.
    setting.engine.run("gone", &[]);
    let _found = inside(&setting, "gone", "found", 9000);
    setting.eventually("it is up again", |list| list["namespaces"][0]["rules"][0]["state"] == "up");
    // What a user asks for now is wrong now.
    setting.engine.client(&["rm", "--force", "gone"]);
    let outcome = setting.cli().run(&["attach", &target, "--match", "tcp:1", "--to", &to, "--follow"]);
    assert_eq!(outcome.code(), 3, "{outcome}");
}

fn a_rule_that_follows_two_names_says_what_was_said_last(kind: &'static str) {
    let setting = Setting::new(kind);
    let id = setting.engine.run("web", &[]);
    setting.steer("web", &["--follow"]);
    // The same rule, in the container's other name.
    let by_id = setting.engine.target(&id[..12]);
    let attach = ["attach", &by_id, "--name", "web", "--match", "tcp:8080", "--to", "reject", "--follow"];
    let attached = setting.cli().json(&attach);
    assert_eq!(attached["result"], "changed");
    assert_eq!(setting.list()["namespaces"][0]["rules"][0]["follows"], by_id);
    setting.engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_steered(&id[..12], cookie(&attached));
    let list = setting.list();
    assert_eq!(list["namespaces"][0]["rules"][0]["to"], json!(["reject"]), "{list:#}");
    assert_eq!(list["waiting"], json!([]));
    setting.cli().json(&["detach", &by_id]);
    setting.eventually_nothing();
}

fn a_stopped_container_of_a_pod_that_lives_can_be_detached(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("pod", &[]);
    setting.engine.run("web", &["--network", "container:pod"]);
    setting.steer("web", &["--follow"]);
    setting.engine.client(&["stop", "-t", "0", "web"]);
    assert_eq!(setting.visit("pod").server, "proxy", "the namespace lives");
    let target = setting.engine.target("web");
    let second = |options: &[&str]| {
        let attach = ["attach", &target, "--name", "two", "--match", "tcp:8081", "--to", "pass", "--follow"];
        setting.cli().json(&[&attach, options].concat())
    };
    // A rule more waits, and the one that is in force stays what it is.
    assert_eq!(second(&[])["result"], "waiting");
    let list = setting.list();
    assert_eq!(list["namespaces"][0]["rules"][0]["follows"], target, "{list:#}");
    assert_eq!(setting.visit("pod").server, "proxy");
    // One rule of it, by name.
    let detached = setting.cli().json(&["detach", &target, "--rule", "two"]);
    assert_eq!((&detached["rules"], &detached["steered"]), (&json!(["two"]), &json!(false)), "{detached:#}");
    assert_eq!(setting.list()["waiting"], json!([]));
    assert_eq!(setting.visit("pod").server, "proxy");
    // What it shall say from the next start on waits, and what it says goes on.
    let attach = ["attach", &target, "--name", "web", "--match", "tcp:8080", "--to", "reject", "--follow"];
    assert_eq!(setting.cli().json(&attach)["result"], "waiting");
    let list = setting.list();
    assert_eq!(list["waiting"][0]["rules"][0]["to"], json!(["reject"]), "{list:#}");
    assert_eq!(setting.visit("pod").server, "proxy");
    // And all of them.
    assert_eq!(second(&[])["result"], "waiting");
    let detached = setting.cli().json(&["detach", &target]);
    assert_eq!(detached["rules"], json!(["web", "two"]), "{detached:#}");
    assert_eq!(setting.answer("pod"), "refused");
    setting.eventually_nothing();
}

fn a_rule_leaves_a_namespace_that_lives_on_without_its_container(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    let before = cookie(&setting.steer("web", &["--follow"]));
    // As a pod's: it has the namespace that web had, when web gets another.
    setting.engine.run("sidecar", &["--network", "container:web"]);
    setting.engine.client(&["restart", "-t", "0", "web"]);
    let [web, sidecar] = ["web", "sidecar"].map(|name| setting.engine.netns_of(name).inode());
    assert_ne!(web, sidecar, "the sidecar must keep the namespace");
    setting.eventually_steered("web", before);
    let list = setting.list();
    assert_eq!(list["namespaces"].as_array().map(Vec::len), Some(1), "{list:#}");
    setting.cli().json(&["detach", &setting.engine.target("web")]);
    setting.eventually_nothing();
}

fn an_id_goes_on_where_a_name_has_gone_elsewhere(kind: &'static str) {
    let setting = Setting::new(kind);
    let id = setting.engine.client(&["create", "--name", "web", setting.engine.image()]);
    for name in ["web", &id[..12]] {
        assert_eq!(setting.steer(name, &["--follow"])["result"], "waiting");
    }
    setting.engine.client(&["start", "web"]);
    setting.eventually("it is in force by both names", |list| list["waiting"] == json!([]));
    let before = cookie(&setting.list()["namespaces"][0]);
    setting.engine.client(&["rename", "web", "old"]);
    setting.engine.run("web", &[]);
    setting.eventually_steered("web", before);
    for container in ["web", "old"] {
        assert_eq!(setting.visit(container).server, "proxy");
    }
    setting.engine.client(&["restart", "-t", "0", "old"]);
    setting.eventually("the id is followed on", |list| {
        let namespaces = list["namespaces"].as_array().expect("an array").iter();
        namespaces.filter(|netns| netns["cookie"] != before).count() == 2 && list["waiting"] == json!([])
    });
    assert_eq!(setting.visit("old").server, "proxy");
}

fn a_rule_that_waits_can_be_ended_where_the_container_runs(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("pod", &[]);
    setting.engine.run("web", &[]);
    let (pod, web) = (setting.engine.target("pod"), setting.engine.target("web"));
    let in_the_way = ["attach", &pod, "--name", "web", "--match", "tcp:8080", "--to", "reject"];
    let becomes_one_that_waits = || {
        setting.cli().json(&in_the_way);
        setting.engine.client(&["rm", "--force", "web"]);
        setting.engine.run("web", &["--network", "container:pod"]);
        setting.eventually("it waits", |list| list["waiting"][0]["target"] == web);
    };
    setting.steer("web", &["--follow"]);
    becomes_one_that_waits();
    // The namespace has a rule of that name, of another: the one that waits is not it.
    let detached = setting.cli().json(&["detach", &pod]);
    assert_eq!(detached["rules"], json!(["web"]));
    setting.eventually_steered("web", 0);
    setting.engine.client(&["rm", "--force", "web"]);
    setting.engine.run("web", &[]);
    setting.eventually_steered("web", 0);
    becomes_one_that_waits();
    // The user's word about the same rule ends the waiting, and takes the place.
    assert_eq!(setting.steer("web", &["--no-follow"])["result"], "changed");
    let list = setting.list();
    assert_eq!((&list["waiting"], list["namespaces"][0]["rules"][0].get("follows")), (&json!([]), None));
    assert_eq!(setting.visit("pod").server, "proxy");
}

fn a_rule_without_a_name_that_is_said_twice_is_one_rule(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.client(&["create", "--name", "web", setting.engine.image()]);
    let target = setting.engine.target("web");
    let attach = |options: &[&str]| {
        let attach = ["attach", &target, "--match", "tcp:8080", "--to", "pass", "--follow"];
        setting.cli().json(&[&attach, options].concat())
    };
    // What would be is said, and is not done.
    let dry = attach(&["--dry-run"]);
    assert_eq!((&dry["result"], &dry["dry_run"]), (&json!("waiting"), &json!(true)), "{dry:#}");
    assert_eq!(setting.list()["waiting"], json!([]));
    for _ in 0..2 {
        assert_eq!(attach(&[])["rule"], "rule-1");
    }
    let other = setting.cli().json(&["attach", &target, "--match", "tcp:1", "--to", "pass", "--follow"]);
    assert_eq!(other["rule"], "rule-2");
    setting.engine.client(&["start", "web"]);
    setting.eventually("both are in force", |list| {
        list["namespaces"][0]["rules"].as_array().map(Vec::len) == Some(2) && list["waiting"] == json!([])
    });
}

fn attach_without_follow_ends_following(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    setting.steer("web", &["--follow"]);
    assert_eq!(setting.steer("web", &["--follow"])["result"], "unchanged");
    assert_eq!(setting.steer("web", &["--no-follow"])["result"], "changed");
    assert_eq!(setting.list()["namespaces"][0]["rules"][0].get("follows"), None);
    setting.engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_nothing();
    assert_eq!(setting.answer("web"), "refused");
}

fn a_container_is_followed_unless_somebody_says_otherwise(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    let before = cookie(&setting.steer("web", &[]));
    setting.engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_steered("web", before);
    assert_eq!(setting.visit("web").server, "proxy");
    // One that exists and does not run is waited for.
    setting.engine.client(&["create", "--name", "later", setting.engine.image()]);
    assert_eq!(setting.steer("later", &[])["result"], "waiting");
    setting.engine.client(&["start", "later"]);
    setting.eventually_steered("later", 0);
    // The last word counts; and what cannot follow does not, where nobody has asked for it.
    let web = setting.engine.target("web");
    let to = format!("pid:{}/127.0.0.1:80", std::process::id());
    let attach = ["attach", &web, "--name", "process", "--match", "tcp:1", "--to", &to];
    setting.cli().json(&attach);
    let follow = setting.cli().run(&[&attach[..], &["--follow"]].concat());
    assert_eq!(follow.code(), 2, "{follow}");
    let both = ["--follow", "--no-follow"];
    assert_eq!(setting.steer("web", &both)["result"], "changed");
    assert_eq!(setting.steer("web", &[])["result"], "changed");
}

fn a_container_that_does_not_exist_yet_can_be_waited_for(kind: &'static str) {
    let setting = Setting::new(kind);
    let web = setting.engine.target("web");
    let attach = ["attach", &web, "--match", "tcp:8080", "--to", "pass"];
    let outcome = setting.cli().run(&attach);
    assert_eq!(outcome.code(), 3, "{outcome}");
    assert_eq!(setting.steer("web", &["--wait"])["result"], "waiting");
    assert_eq!(setting.steer("once", &["--wait", "--no-follow"])["result"], "waiting");
    for name in ["web", "once"] {
        setting.engine.run(name, &[]);
        setting.eventually_steered(name, 0);
        assert_eq!(setting.visit(name).server, "proxy");
    }
    setting.engine.client(&["rm", "--force", "web", "once"]);
    setting.eventually_waiting("web");
}

/// Takes long because an engine is ended and begins again, with the containers that it has had.
fn a_restart_of_the_engine_is_survived(kind: &'static str) {
    let setting = Setting::new(kind);
    setting.engine.run("web", &[]);
    let mut before = cookie(&setting.steer("web", &["--follow"]));
    for how in ["stop", "kill"] {
        setting.engine.tell(how);
        eventually("it is told that the engine is gone", AT_ONCE, || {
            let log = setting.daemon.log_with(&["not told what happens to containers"]);
            if log.is_empty() { Err(setting.daemon.log()) } else { Ok(()) }
        });
        setting.engine.tell("start");
        // Docker ends its containers with itself, Podman does not.
        if kind == "docker" {
            setting.engine.client(&["start", "web"]);
            before = setting.eventually_steered("web", before);
        }
        assert_eq!(setting.visit("web").server, "proxy");
    }
    // It hears again what happens.
    setting.engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_steered("web", before);
    assert_eq!(setting.visit("web").server, "proxy");
}

fn many_containers_start_and_go_at_once(kind: &'static str) {
    let containers = scale::containers();
    let setting = Setting::new(kind);
    let names: Vec<_> = (0..containers).map(|number| format!("web{number}")).collect();
    let fds = setting.daemon.fds_at_rest();
    for name in &names {
        setting.engine.client(&["create", "--name", name, setting.engine.image()]);
        assert_eq!(setting.steer(name, &["--follow"])["result"], "waiting");
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let (engine, names) = (&setting.engine, &names);
    let at_once = |command: &[&str]| {
        thread::scope(|scope| {
            for half in names.chunks(containers / 2) {
                let arguments = [command, half].concat();
                scope.spawn(move || engine.client(&arguments));
            }
        });
    };
    at_once(&["start"]);
    setting.eventually("every container is steered", |list| {
        list["namespaces"].as_array().is_some_and(|all| all.len() == containers)
    });
    assert_eq!(setting.visit("web0").server, "proxy");
    at_once(&["rm", "--force"]);
    let list = setting.eventually("every rule waits", |list| list["namespaces"] == json!([]));
    assert_eq!(list["waiting"].as_array().map(Vec::len), Some(containers));
    for name in names {
        setting.cli().json(&["detach", &setting.engine.target(name)]);
    }
    setting.eventually_nothing();
    setting.daemon.eventually_has_fds(fds);
}
