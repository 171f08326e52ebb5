//! Rules that labels say, and whose labels count.

use serde_json::{Value, json};

use super::{LABEL, refused};
use crate::{
    for_each_engine,
    setting::{PORT, Setting},
};

for_each_engine!(
    labels_say_the_rules_of_their_container,
    what_an_image_says_counts_only_where_it_is_asked_to,
);

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
