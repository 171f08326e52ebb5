//! `redirector check`.

use std::{
    io::{self, Write as _},
    mem,
};

use serde::Serialize;

use super::{
    args,
    exit::Failure,
    explain::never,
    file::{Source, counted},
    file_rules::FileRules,
    output,
};
use crate::{
    config::file::{ConfigFile, Problem, schema},
    control::SCHEMA,
};

/// What `--json` prints.
#[derive(Default, Serialize)]
struct Checked {
    schema: u32,
    /// By their place in the file.
    problems: Vec<Problem>,
    /// What may surprise, in the same way.
    warnings: Vec<Problem>,
    namespaces: usize,
    rules: usize,
}

pub(super) fn check(command: &args::Check) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let Some(path) = &command.file else {
        serde_json::to_writer_pretty(&mut out, &schema()).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    };
    let source = Source::read(path)?;
    let checked = match source.parse() {
        Ok(file) => look_at(&file),
        Err(problems) => Checked { schema: SCHEMA, problems, ..Checked::default() },
    };
    if command.json {
        output::json(&mut out, &checked)?;
    }
    source.warn(&checked.warnings);
    if !checked.problems.is_empty() {
        return Err(source.refuse(&checked.problems));
    }
    if !command.json {
        let path = path.display().to_string();
        let Checked { namespaces, rules, .. } = checked;
        let (namespaces, rules) = (counted(namespaces, "namespace"), counted(rules, "rule"));
        writeln!(out, "{}: no problems; {namespaces}, {rules}", path.escape_debug())?;
    }
    Ok(())
}

/// Rules of one target that are looked at for what can never decide: it takes longer than there are many.
const MOST_FOR_SHADOWS: usize = 1_000;

/// What the rules of each target come to.
fn look_at(file: &ConfigFile) -> Checked {
    let mut checked = Checked {
        schema: SCHEMA,
        namespaces: file.namespaces.len(),
        rules: file.namespaces.iter().map(|one| one.rules.len()).sum(),
        ..Checked::default()
    };
    for (index, namespace) in file.namespaces.iter().enumerate() {
        let is_first = file.namespaces[..index].iter().all(|one| one.target != namespace.target);
        if is_first {
            look_at_target(file, index, &mut checked);
        }
    }
    let mut warnings = mem::take(&mut checked.warnings);
    warnings.sort_by_key(|warning| warning.place);
    Checked { warnings, ..checked }
}

fn look_at_target(file: &ConfigFile, index: usize, checked: &mut Checked) {
    let target = &file.namespaces[index].target;
    let rules = FileRules::of(file, target);
    let place = |rule: Option<(usize, usize)>| {
        let found =
            rule.map_or(file.place(index, None), |(namespace, rule)| file.place(namespace, Some(rule)));
        found.unwrap_or_default()
    };
    if rules.count() > MOST_FOR_SHADOWS {
        let problem =
            rules.compiled().err().map(|message| Problem { place: place(None), message, hint: None });
        return checked.problems.extend(problem);
    }
    let shadows = match rules.shadows() {
        Ok(shadows) => shadows,
        Err(message) => {
            return checked.problems.push(Problem { place: place(None), message, hint: None });
        }
    };
    for shadow in shadows.shadowed.iter().filter(|shadow| shadow.why == "rules") {
        let of_target = file.namespaces.iter().enumerate().filter(|(_, one)| one.target == *target);
        let mut all = of_target.flat_map(|(namespace, one)| {
            one.rules.iter().enumerate().map(move |(rule, spec)| ((namespace, rule), spec))
        });
        let found = all.find(|(_, spec)| spec.name.as_ref() == Some(&shadow.rule)).map(|(at, _)| at);
        let message = format!("rule `{}`: {}", shadow.rule, never(shadow));
        checked.warnings.push(Problem { place: place(found), message, hint: None });
    }
}
