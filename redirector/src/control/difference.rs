//! What a rule says, and what another one says otherwise, by the keys of a file.

use serde_json::Value;

use super::ChangeSide;

/// What a rule says, by the keys of a file. Those of the command line's defaults are not of interest.
fn keys(state: &ChangeSide) -> serde_json::Map<String, Value> {
    let rule = serde_json::to_value(&state.rule);
    let Ok(Value::Object(mut keys)) = rule else { unreachable!("a rule is an object") };
    keys.remove("name");
    if let Some(follows) = &state.follows {
        keys.insert("follows".into(), follows.to_string().into());
    }
    keys
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "none".into(),
        Some(Value::Array(items)) => items.iter().map(|item| shown(Some(item))).collect::<Vec<_>>().join(" "),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A rule in short.
pub(crate) fn values(state: &ChangeSide) -> String {
    let keys = keys(state);
    format!("{} to {}", shown(keys.get("match")), shown(keys.get("to")))
}

/// Each key that is other.
pub(crate) fn differences(before: &ChangeSide, after: &ChangeSide) -> String {
    let (before, after) = (keys(before), keys(after));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let other = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let other = other.map(|name| format!("{name} {} -> {}", shown(before.get(name)), shown(after.get(name))));
    other.collect::<Vec<_>>().join("; ")
}
