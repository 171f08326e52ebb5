//! Labels of containers: those by which they are found, and those that say rules.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr};

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{Destination, ParseError, RuleName, RuleSpec};
use crate::text::escaped;

/// What all labels begin with that are meant for redirector.
const OURS: &str = "redirector.";

/// What the labels begin with that say rules: `redirector.rule.NAME.KEY`.
const RULE: &str = "redirector.rule.";

/// Keys with several values, which white space separates.
const LISTS: [&str; 5] = ["match", "from", "except", "interface", "to"];

/// A label that containers are found by: `KEY`, whatever its value, or `KEY=VALUE`. As `docker ps --filter label=` takes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// Whether it is one of these.
    #[must_use]
    pub fn is_of(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = self.0.split_once('=').map(|(_, value)| value);
        labels.get(self.key()).is_some_and(|one| value.is_none_or(|value| value == one))
    }

    /// Its key.
    fn key(&self) -> &str {
        self.0.split_once('=').map_or(&self.0, |(key, _)| key)
    }
}

impl FromStr for Label {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error =
            |why: &str| ParseError(format!("label `{}`: {why}; write KEY or KEY=VALUE", text.escape_debug()));
        let label = Self(text.into());
        if label.key().is_empty() {
            return Err(error("it has no key"));
        }
        if label.key().chars().any(char::is_whitespace) || text.chars().any(char::is_control) {
            return Err(error("there is white space in its key, or a control character"));
        }
        if text.len() > 1024 {
            return Err(ParseError("label: longer than 1024 bytes".into()));
        }
        Ok(label)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether one of a container's labels says something of a rule.
#[must_use]
pub fn has_rules(labels: &BTreeMap<String, String>) -> bool {
    labels.keys().any(|key| key.starts_with(RULE))
}

/// The rules that labels of one container may say.
const MOST: usize = 64;

/// The rules that labels of a container say: `redirector.rule.NAME.KEY`, with the keys of a file's rules. Those that containers
/// are found by say none. Of Unix sockets they may name only those of `unix`: the daemon goes there with its own rights, which
/// whoever may label a container need not have.
///
/// # Errors
///
/// All that is wrong with them, each with its label.
pub fn rules_of(
    labels: &BTreeMap<String, String>,
    found_by: &[Label],
    unix: &[PathBuf],
) -> Result<Vec<RuleSpec>, Vec<String>> {
    let mut rules: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut wrong = Vec::new();
    let says_none = |key: &str| !key.starts_with(RULE) && found_by.iter().any(|label| label.key() == key);
    let ours = labels.iter().filter(|(key, _)| key.starts_with(OURS) && !says_none(key));
    for (label, text) in ours {
        let read = read(label).and_then(|(name, key)| Ok((name, key, value(key, text)?)));
        match read {
            Ok((name, key, value)) => drop(rules.entry(name).or_default().insert(key.to_owned(), value)),
            // serde repeats keys and values as they are, and a container's labels may hold anything.
            Err(why) => wrong.push(format!("label `{}`: {}", label.escape_debug(), escaped(&why))),
        }
    }
    if rules.len() > MOST {
        wrong.push(format!("labels say {} rules, and may say {MOST}: write them into the file", rules.len()));
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let mut specs = Vec::new();
    for (name, mut keys) in rules {
        keys.insert("name".into(), name.into());
        match RuleSpec::deserialize(Value::Object(keys)) {
            Ok(spec) => {
                let flaws = spec.flaws().into_iter().map(|flaw| (flaw.key, flaw.text));
                let unfit = spec.cannot_follow().map(|why| ("to", why));
                let flaws = flaws.chain(unfit).chain(not_allowed(&spec, unix).map(|why| ("to", why)));
                wrong.extend(flaws.map(|(key, why)| format!("label `{RULE}{name}.{key}`: {why}")));
                specs.push(spec);
            }
            Err(error) => wrong.push(escaped(&format!("label `{RULE}{name}`: {error}"))),
        }
    }
    if wrong.is_empty() { Ok(specs) } else { Err(wrong) }
}

/// Why a rule may not say where it leads to, if it may not.
fn not_allowed(spec: &RuleSpec, unix: &[PathBuf]) -> Option<String> {
    let named = |to: &Destination| match to {
        Destination::Unix(path) => Some(path.clone()),
        _ => None,
    };
    let path = spec.to.iter().filter_map(named).find(|path| !unix.contains(path))?;
    let path = path.display();
    Some(format!(
        "`unix:{path}`: a label may name only a socket that the file allows, by `unix = [\"{path}\"]` in its `[[discover]]`"
    ))
}

/// The name of the rule, and the key of it that a label is.
fn read(label: &str) -> Result<(&str, &str), String> {
    let form = || format!("not known; a rule's are `{RULE}NAME.KEY`");
    let (name, key) = label.strip_prefix(RULE).and_then(|rest| rest.rsplit_once('.')).ok_or_else(form)?;
    name.parse::<RuleName>().map_err(|error| error.to_string())?;
    if key == "name" {
        return Err("a rule's name is in its labels already".into());
    }
    Ok((name, key))
}

/// The value of a rule's key, as a file would have it, if that can be one.
fn value(key: &str, text: &str) -> Result<Value, String> {
    let list = || Value::Array(text.split_whitespace().map(Value::from).collect());
    let value = match key {
        key if LISTS.contains(&key) => list(),
        "priority" => text.trim().parse::<i32>().map_err(|_| "not a number".to_owned())?.into(),
        "coexist" => text.trim().parse::<bool>().map_err(|_| "neither `true` nor `false`".to_owned())?.into(),
        _ => text.trim().into(),
    };
    // Every key has a default: alone it shows what is wrong with it.
    let alone = Map::from_iter([(key.to_owned(), value.clone())]);
    RuleSpec::deserialize(Value::Object(alone)).map_err(|error| error.to_string())?;
    Ok(value)
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn labels_are_read_and_refused() {
        let ours = labels(&[("a", "b=c"), ("e", "")]);
        for (label, is_there) in [
            ("a", true),
            ("a=b=c", true),
            ("a=b", false),
            ("a=", false),
            ("e", true),
            ("e=", true),
            ("x", false),
        ] {
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
}
