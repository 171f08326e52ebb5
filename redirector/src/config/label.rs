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
mod tests;
