//! `[[discover]]`: containers have rules because of a label, for as long as they run.

use std::fs;

use redirector_tests::{client::answer, daemon::Daemon, server::Server};
use serde_json::{Value, json};

use crate::{
    for_each_engine,
    setting::{PORT, Setting},
};

for_each_engine!(
    containers_with_a_label_have_rules_for_as_long_as_they_run,
    labels_say_the_rules_of_their_container,
    what_an_image_says_counts_only_where_it_is_asked_to,
    what_is_looked_for_is_a_part_of_the_file,
    a_container_keeps_its_rules_whatever_it_is_called,
    what_is_said_of_a_container_itself_goes_before,
    a_detached_rule_comes_back_with_the_next_apply,
    containers_that_share_a_namespace_share_their_rules,
    an_engine_that_is_away_takes_no_rules_along,
    many_found_containers_start_and_go_at_once,
);

const LABEL: &str = "redirector.enable=true";

impl Setting {
    /// A `[[discover]]` of this engine, and what follows.
    fn discover(&self, more: &str) -> String {
        format!("[[discover]]\n{} = {{ label = \"{LABEL}\" }}\n{more}\n", self.engine.kind())
    }

    /// The same, with a rule that leads to the proxy.
    fn discover_to(&self, to: &str) -> String {
        self.discover(&format!(
            "[[discover.rule]]\nname = \"web\"\nmatch = [\"tcp:{PORT}\"]\nto = [\"{to}\"]\n"
        ))
    }

    fn write(&self, text: &str) -> String {
        let path = self.daemon.dir().join("file.toml");
        fs::write(&path, text).expect("write the file");
        path.to_str().expect("UTF-8").to_owned()
    }

    #[track_caller]
    fn apply(&self, text: &str) -> Value {
        self.cli().json(&["apply", &self.write(text)])
    }

    /// Runs a container that has the label, and such rules.
    #[track_caller]
    fn run_labelled(&self, name: &str, labels: &[&str]) -> String {
        let mut options = vec!["--label", LABEL];
        labels.iter().for_each(|label| options.extend(["--label", label]));
        self.engine.run(name, &options)
    }

    /// Waits until exactly these containers are steered, and nothing waits.
    #[track_caller]
    fn eventually_only(&self, containers: &[&str]) -> Value {
        let targets: Vec<_> = containers.iter().map(|name| json!(self.engine.target(name))).collect();
        self.eventually("just these are steered", |list| {
            let steered = list["namespaces"].as_array().expect("an array");
            steered.iter().map(|one| one["target"].clone()).eq(targets.iter().cloned())
                && list["waiting"] == json!([])
        })
    }
}

/// Why found containers have no rules, by their targets.
fn refused(list: &Value) -> Vec<(String, String)> {
    let views = list["discover"].as_array().expect("an array").iter();
    let refused = views.flat_map(|view| view["refused"].as_array().expect("an array"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    refused
        .flat_map(|one| {
            let target = text(&one["target"]);
            one["why"].as_array().expect("an array").iter().map(move |why| (target.clone(), text(why)))
        })
        .collect()
}

fn containers_with_a_label_have_rules_for_as_long_as_they_run(kind: &'static str) {
    let setting = Setting::new(kind);
    let fds = setting.daemon.fds_at_rest();
    let first = setting.run_labelled("first", &[]);
    setting.engine.run("plain", &[]);
    setting.engine.run("other", &["--label", "redirector.enable=false"]);
    let file = setting.discover_to(&setting.proxy.destination());
    let answer = setting.apply(&file);
    // Those that run already are there with the answer.
    let change = &answer["changes"][0];
    assert_eq!(
        (&change["target"], &change["rule"], answer["changes"].as_array().map(Vec::len)),
        (&json!(setting.engine.target("first")), &json!("web"), Some(1)),
        "{answer:#}"
    );
    assert_eq!(answer["discover"][0]["after"]["rule"][0]["name"], "web", "{answer:#}");
    let list = setting.eventually_only(&["first"]);
    assert_eq!(list["namespaces"][0]["container"], first);
    let rule = &list["namespaces"][0]["rules"][0];
    assert_eq!(
        (&rule["origin"], &rule["discovered"], &rule["follows"]),
        (&json!("file"), &json!(true), &json!(setting.engine.target("first")))
    );
    assert_eq!(setting.visit("first").server, "proxy");
    assert_eq!([setting.answer("plain"), setting.answer("other")], ["refused", "refused"]);

    setting.run_labelled("second", &[]);
    let list = setting.eventually_only(&["first", "second"]);
    assert_eq!(setting.visit("second").server, "proxy");
    let view = &list["discover"][0];
    assert_eq!(
        (&view["engine"], &view["label"], &view["rules"], &view["containers"]),
        (&json!(kind), &json!(LABEL), &json!("file"), &json!(2)),
        "{view:#}"
    );
    let text = setting.cli().run(&["list"]).success().stdout;
    assert!(text.contains(&format!("{kind}, label {LABEL}: 2 containers")), "{text}");
    assert!(text.contains("found by label"), "{text}");

    // Nothing waits for a container that is stopped; when it starts it is found as any other.
    setting.engine.client(&["stop", "-t", "0", "first"]);
    setting.eventually_only(&["second"]);
    setting.engine.client(&["start", "first"]);
    setting.eventually_only(&["first", "second"]);
    assert_eq!(setting.visit("first").server, "proxy");
    setting.engine.client(&["restart", "-t", "0", "first"]);
    setting.eventually("its next namespace is steered", |_| setting.answer("first") == "proxy");
    setting.engine.client(&["pause", "second"]);
    assert_eq!(setting.visit("second").server, "proxy");
    setting.engine.client(&["unpause", "second"]);
    setting.engine.client(&["rm", "--force", "first", "second"]);
    setting.eventually_nothing();
    assert_eq!(setting.apply("")["discover"][0]["after"], Value::Null);
    setting.daemon.eventually_has_fds(fds);
}

fn labels_say_the_rules_of_their_container(kind: &'static str) {
    let setting = Setting::new(kind);
    let to = format!("redirector.rule.web.to={}", setting.proxy.destination());
    let matching = format!("redirector.rule.web.match=tcp:{PORT} tcp:9000-9001");
    let answer = setting.apply(&setting.discover(""));
    assert_eq!(answer["changes"], json!([]));
    let good =
        [&*to, &*matching, "redirector.rule.web.on_unavailable=pass", "redirector.rule.ssh.match=tcp:22"];
    setting.run_labelled("good", &[&good[..], &["redirector.rule.ssh.to=reject"]].concat());
    let list = setting.eventually_only(&["good"]);
    let rules = list["namespaces"][0]["rules"].as_array().expect("an array").clone();
    let said: Vec<_> =
        rules.iter().map(|rule| json!([rule["name"], rule["match"], rule["on_unavailable"]])).collect();
    let ports = format!("tcp:{PORT}");
    assert_eq!(
        said,
        [json!(["ssh", ["tcp:22"], "reject"]), json!(["web", [ports, "tcp:9000-9001"], "pass"])]
    );
    assert_eq!(setting.visit("good").server, "proxy");

    // What is wrong with one of them keeps no other from having its rules.
    setting.run_labelled("bad", &[&to, "redirector.rule.web.match=tcp:0", "redirector.rule.webb.hots=x"]);
    setting.run_labelled("none", &[]);
    setting.run_labelled("later", &[&to, &matching]);
    setting.run_labelled("to", &["redirector.rule.x.match=tcp:1", "redirector.rule.x.to=/x"]);
    let labels: Vec<_> = [LABEL, &to, &matching].iter().flat_map(|label| ["--label", label]).collect();
    setting.engine.run("host", &[&labels[..], &["--network", "host"]].concat());
    // Podman does not list whose namespace that is: it is told when the rule would be put.
    let all = |list: &Value| {
        let waiting = list["waiting"].as_array().expect("an array").iter();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let waiting = waiting.map(|one| (text(&one["target"]), text(&one["why"])));
        refused(list).into_iter().chain(waiting).collect::<Vec<_>>()
    };
    let list = setting.eventually("both are steered, and four are not", |list| {
        let is_told = |(_, why): &(String, String)| why.contains("host's own");
        list["namespaces"].as_array().map(Vec::len) == Some(2)
            && all(list).len() == 5
            && all(list).iter().any(is_told)
    });
    let refused = all(&list);
    for (container, label, why) in [
        ("bad", "redirector.rule.web.match", "port 0"),
        ("bad", "redirector.rule.webb.hots", "unknown field `hots`"),
        ("none", "redirector.rule.NAME.KEY", "no label"),
        ("to", "redirector.rule.x.to", "destination"),
        ("host", "", "the host's own network namespace"),
    ] {
        let target = setting.engine.target(container);
        let is_it =
            |(of, said): &&(String, String)| *of == target && said.contains(label) && said.contains(why);
        assert_eq!(refused.iter().filter(is_it).count(), 1, "{container} {label}: {refused:#?}");
    }
    assert_eq!((setting.visit("later").server, setting.answer("bad")), ("proxy".into(), "refused".into()));
    let text = setting.cli().run(&["list"]).success().stdout;
    assert!(text.contains(&format!("{kind}:bad (container ")) && text.contains("port 0"), "{text}");
    // `apply` tells it, and is done all the same.
    let again = setting.apply(&setting.discover(""));
    assert_eq!(again["changes"], json!([]), "{again:#}");
    let warnings = again["warnings"].to_string();
    assert!(warnings.contains(&format!("{kind}:bad: ")) && warnings.contains("port 0"), "{warnings}");
    setting.engine.client(&["rm", "--force", "bad", "none", "to", "host", "good", "later"]);
    setting.eventually("nothing is wrong any more", |list| all(list).is_empty());
    setting.eventually_nothing();
    // By two labels it has the rules of both: the one is not misspelt for the other.
    let audit = format!(
        "[[discover]]\n{kind} = {{ label = \"redirector.audit\" }}\n[[discover.rule]]\nmatch = [\"tcp:7\"]\nto = [\"reject\"]\n"
    );
    setting.apply(&(setting.discover("") + &audit));
    setting.run_labelled("both", &["redirector.audit=yes", &to, &matching]);
    let list = setting.eventually("it is steered", |list| {
        list["namespaces"][0]["rules"].as_array().map(Vec::len) == Some(2)
    });
    let names = ["/namespaces/0/target", "/namespaces/0/rules/0/name", "/namespaces/0/rules/1/name"];
    let names = names.map(|pointer| list.pointer(pointer).expect("it is there").clone());
    assert_eq!(names, [json!(setting.engine.target("both")), json!("found-1"), json!("web")]);
}

fn what_an_image_says_counts_only_where_it_is_asked_to(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    engine.client(&["create", "--name", "template", engine.image()]);
    let to = format!("LABEL redirector.rule.image.to={}", setting.proxy.destination());
    let archive = setting.daemon.dir().join("image.tar");
    let archive = archive.to_str().expect("UTF-8");
    engine.client(&["export", "--output", archive, "template"]);
    engine.client(&["rm", "template"]);
    let matching = format!("LABEL redirector.rule.image.match=tcp:{PORT}");
    let changes = ["LABEL redirector.enable=true", &matching, &to, "CMD [\"sleep\", \"1000\"]"];
    let changes: Vec<_> = changes.iter().flat_map(|change| ["--change", change]).collect();
    engine.client(&[&["import"], &changes[..], &[archive, "redirector-labelled"]].concat());
    let run = |name: &str, labels: &[&str]| {
        let labels: Vec<_> = labels.iter().flat_map(|label| ["--label", label]).collect();
        engine.client(&[&["run", "--detach", "--name", name], &labels[..], &["redirector-labelled"]].concat())
    };
    run("quiet", &[]);
    run("own", &["redirector.rule.own.match=tcp:81", "redirector.rule.own.to=reject"]);
    let answer = setting.apply(&setting.discover(""));
    assert!(answer["warnings"].to_string().contains("image_labels"), "{answer:#}");
    let list = setting.eventually_only(&["own"]);
    assert_eq!(list["namespaces"][0]["rules"].as_array().map(Vec::len), Some(1), "{list:#}");
    assert_eq!(refused(&list).len(), 1, "{list:#}");
    // Whose rules are in the file has them whoever said the label.
    setting.apply(&setting.discover_to(&setting.proxy.destination()));
    setting.eventually_only(&["own", "quiet"]);
    let answer = setting.apply(&setting.discover("image_labels = true"));
    assert_eq!(answer["warnings"], json!([]), "{answer:#}");
    let list = setting.eventually_only(&["own", "quiet"]);
    let names = |index: usize| {
        let rules = list["namespaces"][index]["rules"].as_array().expect("an array");
        rules.iter().map(|rule| rule["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((names(0), names(1)), (vec![json!("image"), json!("own")], vec![json!("image")]));
    assert_eq!(setting.visit("quiet").server, "proxy");
}

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

fn a_container_keeps_its_rules_whatever_it_is_called(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    setting.apply(&setting.discover_to(&setting.proxy.destination()));
    let first = setting.run_labelled("web", &[]);
    let before = setting.eventually_only(&["web"]);
    let mut open = setting.open("web");
    engine.client(&["rename", "web", "old"]);
    let list = setting.eventually_only(&["old"]);
    assert_eq!(list["namespaces"][0]["cookie"], before["namespaces"][0]["cookie"]);
    assert_eq!(list["namespaces"][0]["rules"][0]["follows"], engine.target("old"));
    let counters = |list: &Value| list["namespaces"][0]["rules"][0]["counters"]["steered"].clone();
    assert_eq!(counters(&list), counters(&setting.list()), "it is the same rule");
    // Its name is another's now, which has the label too; then one's that has not.
    let second = setting.run_labelled("web", &[]);
    let list = setting.eventually_only(&["old", "web"]);
    let containers = |list: &Value| {
        let all = list["namespaces"].as_array().expect("an array").iter();
        all.map(|one| one["container"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(containers(&list), [&*first, &*second]);
    assert_eq!([setting.visit("old").server, setting.visit("web").server], ["proxy", "proxy"]);
    engine.client(&["rm", "--force", "web"]);
    engine.run("web", &[]);
    setting.eventually_only(&["old"]);
    assert_eq!(setting.answer("web"), "refused");
    open.echo("still here").expect("it was never touched");
    assert_eq!(setting.daemon.log_with(&["another container"]), Vec::<String>::new());
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
    setting.cli().json(&["attach", &target, "--name", "web", "--match", "tcp:1", "--to", "pass"]);
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

fn containers_that_share_a_namespace_share_their_rules(kind: &'static str) {
    let setting = Setting::new(kind);
    let engine = &setting.engine;
    setting.apply(&setting.discover_to(&setting.proxy.destination()));
    engine.run("pod", &[]);
    for name in ["one", "two"] {
        engine.run(name, &["--label", LABEL, "--network", "container:pod"]);
    }
    let has_two = |list: &Value| list["discover"][0]["containers"] == 2;
    let list = setting.eventually("both are found", |list| {
        has_two(list)
            && list["namespaces"].as_array().map(Vec::len) == Some(1)
            && list["waiting"] == json!([])
    });
    assert_eq!(list["namespaces"][0]["rules"].as_array().map(Vec::len), Some(1), "{list:#}");
    let again = setting.apply(&setting.discover_to(&setting.proxy.destination()));
    assert_eq!((&again["changes"], &again["unchanged"]), (&json!([]), &json!(1)), "{again:#}");
    let at_pod = || answer(engine.netns(), engine.socket_of("pod", PORT));
    assert_eq!(at_pod(), "proxy");
    engine.client(&["rm", "--force", "one"]);
    setting.eventually("one is left", |list| list["discover"][0]["containers"] == 1);
    assert_eq!(at_pod(), "proxy");
    // The namespace lives on; what was for the containers does not.
    engine.client(&["rm", "--force", "two"]);
    setting.eventually_nothing();
    assert_eq!(at_pod(), "refused");
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

fn many_found_containers_start_and_go_at_once(kind: &'static str) {
    let setting = Setting::new(kind);
    let fds = setting.daemon.fds_at_rest();
    setting.apply(&setting.discover_to(&setting.proxy.destination()));
    let names: Vec<_> = (0..10).map(|number| format!("many{number}")).collect();
    for _ in 0..2 {
        std::thread::scope(|scope| {
            for name in &names {
                scope.spawn(|| setting.run_labelled(name, &[]));
            }
        });
        setting.eventually_only(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for name in &names {
            assert_eq!(setting.visit(name).server, "proxy");
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        setting.engine.client(&[&["rm", "--force"], &names[..]].concat());
        setting.eventually_nothing();
    }
    assert_eq!(setting.list()["discover"][0]["containers"], 0);
    setting.apply("");
    setting.daemon.eventually_has_fds(fds);
}

/// Whose engine it is may say which containers there are, but not where the daemon shall connect to.
#[test]
fn labels_at_another_users_engine_say_no_rules() {
    let setting = Setting::new("rootless-podman");
    let labels = [LABEL, "redirector.rule.web.match=tcp:1", "redirector.rule.web.to=unix:/run/x"];
    let labels: Vec<_> = labels.iter().flat_map(|label| ["--label", label]).collect();
    setting.engine.run("web", &[&labels[..], &["--network", "none"]].concat());
    let answer = setting.apply(&setting.discover(""));
    assert_eq!(answer["changes"], json!([]));
    assert!(answer["warnings"].to_string().contains("another user's"), "{answer:#}");
    assert!(refused(&setting.list())[0].1.contains("another user's"));
    let answer = setting.apply(&setting.discover_to(&setting.proxy.destination()));
    assert_eq!(answer["changes"][0]["rule"], "web", "{answer:#}");
    setting.eventually_only(&["web"]);
}
