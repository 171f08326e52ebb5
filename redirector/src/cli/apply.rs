//! `redirector apply`.

use std::{io, path::Path};

use super::{
    args,
    exit::Failure,
    files::{Paths, Reading, Sources},
    output,
};
use crate::{
    config::{
        Engine,
        file::{DaemonOptions, DiscoverSpec},
    },
    control::{
        self, Applied, ApplyRequest, Change, ClientError, DiscoverChange, Refusal, differences, values,
    },
};

pub(super) async fn apply(socket: &Path, command: args::Apply) -> Result<(), Failure> {
    let args::Apply { files, set, replace, dry_run, prune, wait, json } = command;
    let paths = Paths { all: files, optional: Vec::new() };
    let files = Sources::read(&paths, Reading::Once)?.parse_or_tell()?;
    if files.daemon()? != DaemonOptions::default() {
        super::exit::say(
            "note",
            "`[daemon]` is read by `redirector run --config` when it starts, and by nobody else",
        );
    }
    let request = files.request(set.as_ref());
    let request = ApplyRequest { dry_run, prune, wait, replace, ..request };
    let answer = control::call::<Applied>(socket, "/v1/apply", &request).await;
    let answer = answer.map_err(|error| match error {
        ClientError::Refused(error) => files.refused(error),
        other => other.into(),
    })?;
    output::print(|out| if json { output::json(out, &answer) } else { print(out, &answer) })?;
    for warning in &answer.warnings {
        super::exit::say("warning", warning);
    }
    if dry_run && !answer.is_empty() { Err(Failure::differences()) } else { Ok(()) }
}

fn print(out: &mut impl io::Write, answer: &Applied) -> io::Result<()> {
    let Applied { schema: _, dry_run, changes, discover, unchanged, warnings: _, waiting, set_aside: _ } =
        answer;
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
    for Refusal { message, .. } in waiting {
        writeln!(out, "waiting: {message}")?;
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
