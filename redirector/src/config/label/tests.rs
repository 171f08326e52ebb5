//! Which labels find containers, and which say rules.

use super::*;

fn labels(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn found_by() -> [Label; 3] {
    ["redirector.enable=true", "redirector.audit", "redirector.rule.x.match"]
        .map(|label| label.parse().unwrap())
}

#[test]
fn rules_are_read_as_a_file_has_them() {
    let labels = labels(&[
        ("redirector.enable", "true"),
        ("redirector.audit", "yes"),
        ("org.example.redirector.rule.x.match", "of somebody else"),
        ("redirector.rule.web.v1.match", " tcp:80,443\ttcp:[fd00::/8]:8080 "),
        ("redirector.rule.web.v1.from", "10.0.0.0/8 fd00::/8"),
        ("redirector.rule.web.v1.except", "tcp:10.9.0.0/16:443"),
        ("redirector.rule.web.v1.interface", "eth0 eth1"),
        ("redirector.rule.web.v1.priority", "-3"),
        ("redirector.rule.web.v1.to", "docker:proxy/127.0.0.1:8080"),
        ("redirector.rule.web.v1.on_unavailable", "pass"),
        ("redirector.rule.web.v1.connect_timeout", "1s"),
        ("redirector.rule.web.v1.idle_timeout", "1m 30s"),
        ("redirector.rule.web.v1.coexist", "true"),
        ("redirector.rule.ssh.match", "tcp:22"),
        ("redirector.rule.ssh.to", "reject"),
    ]);
    let expected: Vec<RuleSpec> = serde_json::from_value(serde_json::json!([
        {"name": "ssh", "match": ["tcp:22"], "to": ["reject"]},
        {
            "name": "web.v1", "match": ["tcp:80,443", "tcp:[fd00::/8]:8080"], "from": ["10.0.0.0/8", "fd00::/8"],
            "except": ["tcp:10.9.0.0/16:443"], "interface": ["eth0", "eth1"], "priority": -3,
            "to": ["docker:proxy/127.0.0.1:8080"], "on_unavailable": "pass", "connect_timeout": "1s",
            "idle_timeout": "1m 30s", "coexist": true,
        },
    ]))
    .unwrap();
    assert_eq!(rules_of(&labels, &found_by(), &[]).unwrap(), expected);
    assert!(has_rules(&labels));
}

/// Every key that a rule has in a file can be said by a label.
#[test]
fn every_key_of_a_rule_has_its_label() {
    let schema = serde_json::to_value(schemars::schema_for!(RuleSpec)).unwrap();
    for key in schema["properties"].as_object().unwrap().keys().filter(|key| *key != "name") {
        let is_array = schema["properties"][key]["type"] == "array";
        assert_eq!(is_array, LISTS.contains(&&**key), "{key}");
        let error = value(key, "\u{0}").map(|_| ()).unwrap_err();
        assert!(!error.contains("invalid type"), "{key}: {error}");
    }
}

#[test]
fn all_that_is_wrong_is_told_with_its_label() {
    let ours = labels(&[
        ("redirector.enabled", "true"),
        ("redirector.rule.match", "tcp:80"),
        ("redirector.rule..match", "tcp:80"),
        ("redirector.rule.a.name", "b"),
        ("redirector.rule.a.match", "tcp:0"),
        ("redirector.rule.a.hots", "x"),
        ("redirector.rule.a.priority", "high"),
        ("redirector.rule.a.coexist", "maybe"),
        ("redirector.rule.x.match", "what finds it"),
    ]);
    let wrong = rules_of(&ours, &found_by(), &[]).unwrap_err();
    for (label, why) in [
        ("redirector.enabled", "not known"),
        ("redirector.rule.match", "not known"),
        ("redirector.rule..match", "rule name ``"),
        ("redirector.rule.a.name", "already"),
        ("redirector.rule.a.match", "port 0"),
        ("redirector.rule.a.hots", "unknown field `hots`"),
        ("redirector.rule.a.priority", "not a number"),
        ("redirector.rule.a.coexist", "neither"),
        ("redirector.rule.x.match", "match `what`"),
    ] {
        let told = |text: &String| text.starts_with(&format!("label `{label}`: ")) && text.contains(why);
        assert_eq!(wrong.iter().filter(|text| told(text)).count(), 1, "{label}: {wrong:#?}");
    }
    assert_eq!(wrong.len(), 9, "{wrong:#?}");
}

#[test]
fn a_rule_that_cannot_be_is_told_too() {
    for (ours, label, why) in [
        (vec![("redirector.rule.a.match", "tcp:80")], "redirector.rule.a.to", "needs a destination"),
        (vec![("redirector.rule.a.to", "reject")], "redirector.rule.a.match", "needs a match"),
        (
            vec![("redirector.rule.a.match", "tcp:80"), ("redirector.rule.a.to", "pid:1/127.0.0.1:80")],
            "redirector.rule.a.to",
            "cannot be found again",
        ),
        (
            vec![("redirector.rule.a.match", "tcp:80"), ("redirector.rule.a.to", "handoff")],
            "redirector.rule.a.to",
            "",
        ),
    ] {
        let wrong = rules_of(&labels(&ours), &found_by(), &[]).unwrap_err();
        assert!(wrong[0].starts_with(&format!("label `{label}`: ")), "{wrong:?}");
        assert!(wrong[0].contains(why) && wrong.len() == 1, "{wrong:?}");
    }
}

#[test]
fn labels_are_read_and_refused() {
    let ours = labels(&[("a", "b=c"), ("e", "")]);
    for (label, is_there) in
        [("a", true), ("a=b=c", true), ("a=b", false), ("a=", false), ("e", true), ("e=", true), ("x", false)]
    {
        assert_eq!(label.parse::<Label>().unwrap().is_of(&ours), is_there, "{label}");
    }
    for good in ["a", "a=", "a=b", "redirector.enable=true", "a=b=c d"] {
        assert_eq!(good.parse::<Label>().unwrap().to_string(), good);
    }
    for bad in ["", "=b", "a b=c", "a\n", &"a".repeat(1025)] {
        assert!(bad.parse::<Label>().unwrap_err().to_string().starts_with("label"), "{bad:?}");
    }
    assert!(!has_rules(&labels(&[("redirector.enable", "true")])));
}

/// Each line: a label, its value, and what is wrong with it; nothing where it says a rule, or is not ours.
#[test]
fn each_label_is_good_or_says_why_not() {
    let long = format!("redirector.rule.{}.from", "a".repeat(65));
    let longest = format!("redirector.rule.{}.from", "a".repeat(64));
    let cases = [
        ("redirector.rule.b.from", "10.0.0.0/8", ""),
        ("redirector.rule.b.from", "", ""),
        ("redirector.rule.b.from", "10.0.0.0/8,fd00::/8", "source"),
        ("redirector.rule.b.from", "web", "source"),
        ("redirector.rule.b.except", "tcp:10.0.0.1:80\ttcp:10.0.0.2:80", ""),
        ("redirector.rule.b.except", "tcp:81", "nothing in common"),
        ("redirector.rule.b.except", "tcp", "match"),
        ("redirector.rule.b.interface", "eth0\teth1", ""),
        ("redirector.rule.b.interface", "a/b", "interface"),
        ("redirector.rule.b.priority", " 7 ", ""),
        ("redirector.rule.b.priority", "-2147483648", ""),
        ("redirector.rule.b.priority", "2147483648", "not a number"),
        ("redirector.rule.b.priority", "1.5", "not a number"),
        ("redirector.rule.b.coexist", "true", ""),
        ("redirector.rule.b.coexist", "True", "neither"),
        ("redirector.rule.b.coexist", "1", "neither"),
        ("redirector.rule.b.on_unavailable", "drop", ""),
        ("redirector.rule.b.on_unavailable", "Drop", "unknown variant"),
        ("redirector.rule.b.connect_timeout", "500ms", ""),
        ("redirector.rule.b.connect_timeout", "5", "time `5`"),
        ("redirector.rule.b.idle_timeout", "25d", "24 days"),
        ("redirector.rule.b.to", "pass reject", "one destination"),
        ("redirector.rule.b.to", "self/127.0.0.1:1", "self"),
        ("redirector.rule.b.match", "", "needs a match"),
        // Names.
        (&longest, "10.0.0.0/8", "needs"),
        (&long, "10.0.0.0/8", "rule name"),
        ("redirector.rule.-b.from", "10.0.0.0/8", "rule name"),
        ("redirector.rule.b/c.from", "10.0.0.0/8", "rule name"),
        ("redirector.rule.b", "tcp:80", "not known"),
        ("redirector.rule.", "tcp:80", "not known"),
        ("redirector.rule.b.", "tcp:80", "unknown field"),
        ("redirector.rule.b.Match", "tcp:80", "unknown field"),
        ("redirector.rule.b.name", "b", "already"),
        ("redirector.rule.b.from\u{1b}", "x", "unknown field"),
        ("redirector.", "", "not known"),
        ("redirector.rules.b.match", "tcp:80", "not known"),
        // Of somebody else, or what finds it.
        ("redirector", "x", ""),
        ("Redirector.rule.b.match", "tcp:0", ""),
        ("redirector.enable", "anything", ""),
    ];
    let is_wrong = |(label, value, why): &(&str, &str, &str)| {
        let mut ours = labels(&[("redirector.rule.b.match", "tcp:80"), ("redirector.rule.b.to", "reject")]);
        ours.insert((*label).to_owned(), (*value).to_owned());
        let told = rules_of(&ours, &found_by(), &[]);
        let is_as_said = match &told {
            Ok(rules) => why.is_empty() && rules.len() == 1,
            Err(wrong) => {
                let is_one_line = |text: &String| {
                    text.starts_with("label `redirector.") && !text.contains(char::is_control)
                };
                !why.is_empty()
                    && wrong.iter().all(is_one_line)
                    && wrong.iter().any(|text| text.contains(why))
            }
        };
        (!is_as_said).then(|| format!("{label:?}={value:?}: {why:?}, not {told:?}"))
    };
    let wrong: Vec<_> = cases.iter().filter_map(is_wrong).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each line: what finds containers, a label that finds one, and whether another that begins like a rule's is read all the same.
#[test]
fn a_label_that_finds_containers_says_no_rule_unless_it_is_a_rules() {
    for (found_by, label, is_read) in [
        ("redirector.enable", "redirector.enable", true),
        ("redirector.enable=true", "redirector.enable", true),
        ("redirector.enable", "redirector.enabled", false),
        ("redirector.rule", "redirector.rule", true),
        ("redirector.rule.a.from", "redirector.rule.a.from", false),
    ] {
        let ours = labels(&[
            ("redirector.rule.a.match", "tcp:80"),
            ("redirector.rule.a.to", "reject"),
            (label, "not a source"),
        ]);
        let told = rules_of(&ours, &[found_by.parse().unwrap()], &[]);
        assert_eq!(told.is_ok(), is_read, "{found_by} {label}: {told:?}");
    }
}

#[test]
fn a_label_may_be_as_long_as_that() {
    for (length, is_good) in [(1, true), (1024, true), (1025, false)] {
        assert_eq!("a".repeat(length).parse::<Label>().is_ok(), is_good, "{length}");
    }
    for (text, is_good) in
        [("a=b\tc", false), ("a\u{a0}b=c", false), ("a=\u{a0}", true), ("a==", true), ("=", false)]
    {
        assert_eq!(text.parse::<Label>().is_ok(), is_good, "{text:?}");
    }
}

#[test]
fn a_label_names_no_socket_that_the_file_does_not_allow() {
    let to = |to: &str| labels(&[("redirector.rule.a.match", "tcp:80"), ("redirector.rule.a.to", to)]);
    let allowed = ["/run/app.sock", "/run/b"].map(PathBuf::from);
    for (named, is_allowed) in [
        ("unix:/run/app.sock", true),
        ("unix:/run/b", true),
        ("unix:/run/redirector/control.sock", false),
        ("unix:/run/../run/b", false),
        ("unix:/run/app.sock2", false),
        ("127.0.0.1:80", true),
    ] {
        match rules_of(&to(named), &found_by(), &allowed) {
            Ok(_) => assert!(is_allowed, "{named}"),
            Err(wrong) => {
                assert!(!is_allowed, "{wrong:?}");
                let begin = format!("label `redirector.rule.a.to`: `{named}`: ");
                assert!(wrong.len() == 1 && wrong[0].starts_with(&begin), "{wrong:?}");
            }
        }
    }
    assert!(rules_of(&to("unix:/run/b"), &found_by(), &[]).is_err(), "none is allowed by itself");
}

#[test]
fn labels_of_one_container_say_no_more_rules_than_there_may_be() {
    let many = |count: usize| -> BTreeMap<_, _> {
        let of_one = |number| {
            let key = |key: &str| format!("redirector.rule.r{number}.{key}");
            [(key("match"), "tcp:80".to_owned()), (key("to"), "reject".to_owned())]
        };
        (0..count).flat_map(of_one).collect()
    };
    assert_eq!(rules_of(&many(MOST), &found_by(), &[]).unwrap().len(), MOST);
    let wrong = rules_of(&many(MOST + 1), &found_by(), &[]).unwrap_err();
    assert_eq!(wrong, ["labels say 65 rules, and may say 64: write them into the file"]);
}
