//! `[[discover]]`: containers have rules because of a label, for as long as they run.

mod file;
mod labels;

use std::fs;

use redirector_tests::client::answer;
use serde_json::{Value, json};

use crate::{
    for_each_engine,
    setting::{PORT, Setting},
};

for_each_engine!(
    containers_with_a_label_have_rules_for_as_long_as_they_run,
    a_container_keeps_its_rules_whatever_it_is_called,
    containers_that_share_a_namespace_share_their_rules,
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
