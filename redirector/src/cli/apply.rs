//! `redirector apply`.

use std::{io, path::Path};

use serde_json::Value;

use super::{args, exit::Failure, file::SourceFile, output};
use crate::{
    config::{
        Engine,
        file::{DaemonOptions, DiscoverSpec},
    },
    control::{self, Applied, ApplyRequest, Change, ChangeSide, ClientError, DiscoverChange},
};

pub(super) async fn apply(socket: &Path, command: args::Apply) -> Result<(), Failure> {
    let args::Apply { file: path, dry_run, prune, json } = command;
    let source = SourceFile::read(&path)?;
    let file = source.parse_or_tell()?;
    if file.daemon != DaemonOptions::default() {
        super::exit::say(
            "note",
            "`[daemon]` is read by `redirector run --config` when it starts, and by nobody else",
        );
    }
    let (namespaces, discover) = (file.namespaces.clone(), file.discover.clone());
    let request = ApplyRequest { namespaces, discover, dry_run, prune, lenient: false };
    let answer = control::call::<Applied>(socket, "/v1/apply", &request).await;
    let answer = answer.map_err(|error| match error {
        ClientError::Refused(error) => source.refused(&file, error),
        other => other.into(),
    })?;
    output::print(|out| if json { output::json(out, &answer) } else { print(out, &answer) })?;
    for warning in &answer.warnings {
        super::exit::say("warning", warning);
    }
    if dry_run && !answer.is_empty() { Err(Failure::differences()) } else { Ok(()) }
}

fn print(out: &mut impl io::Write, answer: &Applied) -> io::Result<()> {
    let Applied { schema: _, dry_run, changes, discover, unchanged, warnings: _, set_aside: _ } = answer;
    for DiscoverChange { before, after } in discover {
        let both = [("-", before), ("+", after)];
        for (sign, spec) in both.into_iter().filter_map(|(sign, spec)| Some((sign, spec.as_ref()?))) {
            writeln!(out, "{sign} {}", discovers(spec).escape_debug())?;
        }
    }
    let (mut added, mut changed, mut removed) = (0, 0, 0);
    for change in changes {
        let Change { target, cookie: _, rule, before, after } = change;
        let (sign, text) = match (before, after) {
            (None, Some(after)) => {
                added += 1;
                ("+", values(after))
            }
            (Some(before), Some(after)) => {
                changed += 1;
                ("~", differences(before, after))
            }
            (Some(before), None) => {
                removed += 1;
                ("-", values(before))
            }
            (None, None) => continue,
        };
        let target = target.to_string();
        writeln!(out, "{sign} {} {rule}: {}", target.escape_debug(), text.escape_debug())?;
    }
    let would = if *dry_run { "would be " } else { "" };
    writeln!(
        out,
        "{would}applied: {added} added, {changed} changed, {removed} removed, {unchanged} unchanged"
    )
}

/// What is looked for, and which rules that gives.
fn discovers(spec: &DiscoverSpec) -> String {
    let names: Vec<_> =
        spec.rules.iter().filter_map(|rule| rule.name.as_ref()).map(ToString::to_string).collect();
    let rules = if names.is_empty() { "rules of their labels".to_owned() } else { names.join(" ") };
    let of = |engine: Engine| Some(format!("{engine} containers with label {}", spec.of(engine)?));
    let what: Vec<_> = Engine::ALL.into_iter().filter_map(of).collect();
    format!("{}: {rules}", what.join(", "))
}

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

fn values(state: &ChangeSide) -> String {
    let keys = keys(state);
    format!("{} to {}", shown(keys.get("match")), shown(keys.get("to")))
}

/// Each key that is other.
fn differences(before: &ChangeSide, after: &ChangeSide) -> String {
    let (before, after) = (keys(before), keys(after));
    let mut names: Vec<_> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    let other = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let other = other.map(|name| format!("{name} {} -> {}", shown(before.get(name)), shown(after.get(name))));
    other.collect::<Vec<_>>().join("; ")
}
