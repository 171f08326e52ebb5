//! What is looked for beside what else is said: by the file, by `attach` and `detach`, and by an engine that is away.

use redirector_tests::{daemon::Daemon, server::Server};
use serde_json::{Value, json};

use super::{LABEL, refused};
use crate::{
    for_each_engine,
    setting::{PORT, Setting},
};

for_each_engine!(
    what_is_looked_for_is_a_part_of_the_file,
    what_is_said_of_a_container_itself_goes_before,
    a_detached_rule_comes_back_with_the_next_apply,
    an_engine_that_is_away_takes_no_rules_along,
);

fn what_is_looked_for_is_a_part_of_the_file(kind: &'static str) {
    let setting = Setting::new(kind);
    let proxy = setting.proxy.destination();
    setting.run_labelled("web", &[]);
    setting.engine.run("named", &[]);
    let named = format!(
        "[[namespace]]\ntarget = \"{}\"\n[[namespace.rule]]\nname = \"own\"\nmatch = [\"tcp:1\"]\nto = [\"pass\"]\n",
        setting.engine.target("named")
    );
    let file = setting.discover_to(&proxy) + &named;
    let path = setting.write(&file);
    let dry = setting.cli().run(&["apply", "--dry-run", &path]);
    assert_eq!(dry.code(), 5, "{dry}");
    let label = format!("+ {kind} containers with label {LABEL}: web\n");
    assert!(dry.stdout.contains(&label) && dry.stdout.contains(&format!("+ {kind}:web web: ")), "{dry}");
    assert_eq!(setting.list()["discover"], Value::Null);
    assert_eq!(setting.apply(&file)["changes"].as_array().map(Vec::len), Some(2));
    assert_eq!(setting.cli().run(&["apply", "--dry-run", &path]).success().stdout.lines().count(), 1);
    let mut open = setting.open("web");

    let exported = setting.cli().run(&["export"]).success().stdout;
    let again = setting.apply(&exported);
    assert_eq!((&again["changes"], &again["discover"]), (&json!([]), &Value::Null), "{exported}\n{again:#}");
    assert_eq!(again["unchanged"], 2);
    assert_eq!(setting.cli().run(&["export"]).success().stdout, exported);

    // Another rule for all of them, and what is open goes on.
    let other = setting.discover_to("reject") + &named;
    let changed = setting.apply(&other);
    let change = &changed["changes"][0];
    assert_eq!(
        (&change["before"]["rule"]["to"], &change["after"]["rule"]["to"]),
        (&json!([proxy]), &json!(["reject"]))
    );
    assert_eq!(setting.answer("web"), "refused");
    open.echo("still here").expect("what was relayed goes on");
    // A label that is looked for, and that no container has, is a difference all the same.
    let label = format!(
        "[[discover]]\n{kind} = {{ label = \"nobody.has.it\" }}\n[[discover.rule]]\nmatch = [\"tcp:1\"]\nto = [\"pass\"]\n"
    );
    let path = setting.write(&(other.clone() + &label));
    assert_eq!(setting.cli().run(&["apply", "--dry-run", &path]).code(), 5);
    // What is not looked for any more has no rules any more, now or later.
    let gone = setting.apply(&named);
    assert_eq!((&gone["changes"][0]["after"], &gone["unchanged"]), (&Value::Null, &json!(1)), "{gone:#}");
    setting.eventually_only(&["named"]);
    setting.run_labelled("late", &[]);
    setting.engine.client(&["restart", "-t", "0", "named"]);
    setting.eventually_only(&["named"]);
    assert_eq!(setting.answer("late"), "refused");
}

fn what_is_said_of_a_container_itself_goes_before(kind: &'static str) {
    let setting = Setting::new(kind);
    let web = setting.engine.target("web");
    for name in ["side", "web"] {
        setting.run_labelled(name, &[]);
    }
    let own = format!(
        "[[namespace]]\ntarget = \"{web}\"\n[[namespace.rule]]\nname = \"web\"\nmatch = [\"tcp:{PORT}\"]\nto = [\"reject\"]\n"
    );
    let discover = setting.discover_to(&setting.proxy.destination());
    let file = own + &discover;
    assert_eq!(setting.apply(&file)["warnings"], json!([]));
    setting.eventually_only(&["side", "web"]);
    assert_eq!([setting.answer("side"), setting.answer("web")], ["proxy", "refused"]);
    assert_eq!(setting.apply(&file)["changes"], json!([]));
    setting.engine.client(&["restart", "-t", "0", "web"]);
    setting.eventually_only(&["side", "web"]);
    assert_eq!(setting.answer("web"), "refused");
    // Without it there is what all of them have; and the other way round.
    setting.apply(&discover);
    assert_eq!(setting.answer("web"), "proxy");
    setting.apply(&file);
    assert_eq!(setting.answer("web"), "refused");
    // So it is where the file names it otherwise; and it stays so whatever happens to whom.
    let id = setting.engine.client(&["inspect", "web", "--format", "{{.Id}}"]);
    let path = format!("path:{}", setting.engine.netns_of("web").path().display());
    for target in [setting.engine.target(&id[..12]), path] {
        setting.apply(&discover);
        assert_eq!(setting.answer("web"), "proxy");
        let own = format!(
            "[[namespace]]\ntarget = \"{target}\"\n[[namespace.rule]]\nname = \"web\"\nmatch = [\"tcp:{PORT}\"]\nto = [\"reject\"]\n"
        );
        let file = own + &discover;
        setting.apply(&file);
        assert_eq!(setting.apply(&file)["changes"], json!([]), "{target}");
        setting.engine.client(&["restart", "-t", "0", "side"]);
        setting.eventually("the other is steered again", |_| setting.answer("side") == "proxy");
        assert_eq!(setting.answer("web"), "refused", "{target}");
    }

    // A rule of `attach` is nobody else's to change. What is in its way is told, and comes when it is gone.
    setting.apply("");
    let target = setting.engine.target("side");
    // Its other rules are there all the same.
    let other = "[[discover.rule]]\nname = \"other\"\nmatch = [\"tcp:2\"]\nto = [\"reject\"]\n";
    let discover = discover + other;
    let rules = |list: &Value| {
        let rules = list["namespaces"][0]["rules"].as_array().expect("an array").iter();
        rules.map(|rule| json!([rule["name"], rule["origin"]])).collect::<Vec<_>>()
    };
    setting.cli().json(&[
        "attach",
        &target,
        "--name",
        "web",
        "--match",
        "tcp:1",
        "--to",
        "pass",
        "--no-follow",
    ]);
    for changes in [4, 0] {
        let answer = setting.apply(&discover);
        assert_eq!(answer["changes"].as_array().map(Vec::len), Some(changes), "{answer:#}");
        assert!(answer["warnings"].to_string().contains("one of `attach`"), "{answer:#}");
        assert_eq!([setting.answer("side"), setting.answer("web")], ["refused", "proxy"]);
        let list = setting.eventually("it waits", |list| list["waiting"][0]["target"] == target);
        assert_eq!(rules(&list), [json!(["other", "file"]), json!(["web", "api"])]);
    }
    setting.cli().json(&["detach", &target, "--rule", "web"]);
    setting.eventually_only(&["side", "web"]);
    assert_eq!(setting.answer("side"), "proxy");

    // The same where that rule follows, and with the container found later.
    setting.apply("");
    setting.cli().json(&["attach", &target, "--name", "web", "--match", "tcp:1", "--to", "pass", "--follow"]);
    for changes in [3, 0] {
        let answer = setting.apply(&discover);
        assert_eq!(answer["changes"].as_array().map(Vec::len), Some(changes), "{answer:#}");
        assert!(answer["warnings"].to_string().contains("one of `attach`"), "{answer:#}");
    }
    setting.engine.client(&["restart", "-t", "0", "side"]);
    let list = setting.eventually("it is told", |list| !refused(list).is_empty());
    assert!(refused(&list)[0].1.contains("one of `attach`"), "{list:#}");
    assert_eq!(setting.answer("side"), "refused");
    setting.cli().json(&["detach", &target, "--rule", "web"]);
    setting.eventually("it comes when that is gone", |_| setting.answer("side") == "proxy");
}

fn a_detached_rule_comes_back_with_the_next_apply(kind: &'static str) {
    let setting = Setting::new(kind);
    let file = setting.discover_to(&setting.proxy.destination());
    setting.run_labelled("web", &[]);
    setting.apply(&file);
    let target = setting.engine.target("web");
    let refused =
        setting.cli().run(&["attach", &target, "--name", "web", "--match", "tcp:1", "--to", "pass"]);
    assert!(redirector_tests::cli::error(&refused, 1).contains("configuration file"), "{refused}");
    setting.cli().json(&["detach", &target]);
    // Another container has the engine asked again, and so has itself.
    setting.run_labelled("other", &[]);
    setting.engine.client(&["stop", "-t", "0", "web"]);
    setting.engine.client(&["start", "web"]);
    setting.eventually("both are found", |list| list["discover"][0]["containers"] == 2);
    setting.eventually_only(&["other"]);
    assert_eq!(setting.answer("web"), "refused");
    assert_eq!(setting.apply(&file)["changes"].as_array().map(Vec::len), Some(1));
    setting.eventually_only(&["other", "web"]);
}

fn an_engine_that_is_away_takes_no_rules_along(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    let file = setting.discover_to(&setting.proxy.destination());
    setting.run_labelled("web", &[]);
    setting.apply(&file);
    let path = setting.write(&file);
    let proxy = Server::here("other");
    let flow = format!("tcp 192.0.2.1:40000 -> {}", engine.socket_of("web", PORT));
    // Its containers run on.
    let by_cookie = format!("cookie:{}", setting.list()["namespaces"][0]["cookie"]);
    let explained = || setting.cli().run(&["explain", &by_cookie, &flow]).success().stdout;
    let before = explained();
    assert!(before.contains(&setting.proxy.destination()), "{before}");
    engine.tell("kill");
    setting.eventually("it is said that the engine is away", |list| list["discover"][0]["why"].is_string());
    let text = setting.cli().run(&["list"]).success().stdout;
    assert!(text.contains("not told of others"), "{text}");
    // Neither the loss nor a file that is applied meanwhile takes rules away.
    assert_eq!(setting.list()["namespaces"].as_array().map(Vec::len), Some(1));
    let again = setting.apply(&file);
    assert!(again["warnings"].to_string().contains("as soon as it answers"), "{again:#}");
    assert_eq!(setting.list()["namespaces"].as_array().map(Vec::len), Some(1));
    // One that says otherwise waits for it. What was there is there meanwhile.
    let changed = setting.apply(&setting.discover_to("reject"));
    assert_eq!(changed["changes"][0]["after"]["rule"]["to"], json!(["reject"]), "{changed:#}");
    assert_eq!(explained(), before);
    assert_eq!(setting.list()["namespaces"].as_array().map(Vec::len), Some(1));
    setting.apply(&file);
    // A daemon that starts with the file does not need the engine.
    let waits = Daemon::with(&["--config", &path, &engine.option()]);
    assert_eq!(waits.cli().json(&["list"])["discover"][0]["containers"], 0);
    drop(waits);
    engine.tell("start");
    setting.run_labelled("late", &[]);
    setting.eventually("what has started meanwhile is found", |list| {
        list["namespaces"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["target"] == engine.target("late")))
            && list["discover"][0]["why"].is_null()
    });
    assert_eq!(setting.visit("late").server, "proxy");
    setting.apply(&setting.discover_to(&proxy.destination()));
    assert_eq!(setting.visit("late").server, "other");
}
