//! `redirector check`.

use std::{io::Write as _, mem};

use serde::Serialize;

use super::{
    args,
    exit::Failure,
    explain::never,
    file::{SourceFile, counted},
    file_rules::FileRules,
    output,
};
use crate::{
    config::{
        Destination, RuleName, RuleSpec,
        file::{ConfigFile, Position, Problem, schema},
    },
    control::{DEFAULT_SOCKET, SCHEMA, ShadowedBy, handoff_path},
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
    /// `[[discover]]` tables.
    discover: usize,
    rules: usize,
}

pub(super) fn check(command: &args::Check) -> Result<(), Failure> {
    let Some(path) = &command.file else {
        output::print(|out| {
            serde_json::to_writer_pretty(&mut *out, &schema())?;
            writeln!(out)
        })?;
        return Ok(());
    };
    let source = SourceFile::read(path)?;
    let checked = match source.parse() {
        Ok(file) => look_at(&file),
        Err(problems) => Checked { schema: SCHEMA, problems, ..Checked::default() },
    };
    if command.json {
        output::print(|out| output::json(out, &checked))?;
    }
    source.warn(&checked.warnings);
    if !checked.problems.is_empty() {
        return Err(source.refuse(&checked.problems));
    }
    if !command.json {
        let path = path.display().to_string();
        let Checked { namespaces, discover, rules, .. } = checked;
        let discover = if discover == 0 { String::new() } else { counted(discover, "label") + ", " };
        let (namespaces, rules) = (counted(namespaces, "namespace"), counted(rules, "rule"));
        output::print(|out| {
            writeln!(out, "{}: no problems; {namespaces}, {discover}{rules}", path.escape_debug())
        })?;
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
        discover: file.discover.len(),
        rules: file.namespaces.iter().map(|one| one.rules.len()).sum::<usize>()
            + file.discover.iter().map(|one| one.rules.len()).sum::<usize>(),
        ..Checked::default()
    };
    for (index, namespace) in file.namespaces.iter().enumerate() {
        let is_first = file.namespaces[..index].iter().all(|one| one.target != namespace.target);
        if is_first {
            look_at_target(file, index, &mut checked);
        }
    }
    for (index, spec) in file.discover.iter().enumerate() {
        let place = |rule: Option<&RuleName>| {
            let rule =
                rule.and_then(|name| spec.rules.iter().position(|one| one.name.as_ref() == Some(name)));
            file.discover_place(index, rule).unwrap_or_default()
        };
        look_at_rules(&FileRules::of_found(spec), place, &mut checked);
    }
    checked.problems.extend(own_sockets(file));
    let mut warnings = mem::take(&mut checked.warnings);
    warnings.sort_by_key(|warning| warning.place);
    Checked { warnings, ..checked }
}

/// Rules that lead to a control socket of the daemon whose file this is, as far as the paths say so. Where they lead is
/// seen by the daemon.
fn own_sockets(file: &ConfigFile) -> Vec<Problem> {
    let control = file.daemon.socket.clone().unwrap_or_else(|| DEFAULT_SOCKET.into());
    let own = [handoff_path(&control), control];
    let problem = |rule: &RuleSpec, place: Option<Position>| {
        let to = rule.to.iter().find(|to| matches!(to, Destination::Unix(path) if own.contains(path)))?;
        let message =
            format!("destination `{to}`: it is a control socket of redirector: clients would command it");
        Some(Problem { place: place.unwrap_or_default(), message, hint: None })
    };
    let namespaces = file.namespaces.iter().enumerate().flat_map(|(namespace, spec)| {
        spec.rules.iter().enumerate().map(move |(index, rule)| (rule, file.place(namespace, Some(index))))
    });
    let found = file.discover.iter().enumerate().flat_map(|(discover, spec)| {
        spec.rules
            .iter()
            .enumerate()
            .map(move |(index, rule)| (rule, file.discover_place(discover, Some(index))))
    });
    namespaces.chain(found).filter_map(|(rule, place)| problem(rule, place)).collect()
}

fn look_at_target(file: &ConfigFile, index: usize, checked: &mut Checked) {
    let target = &file.namespaces[index].target;
    let place = |rule: Option<&RuleName>| {
        let Some(name) = rule else { return file.place(index, None).unwrap_or_default() };
        let of_target = file.namespaces.iter().enumerate().filter(|(_, one)| one.target == *target);
        let mut all = of_target.flat_map(|(namespace, one)| {
            one.rules.iter().enumerate().map(move |(rule, spec)| ((namespace, rule), spec))
        });
        let found = all.find(|(_, spec)| spec.name.as_ref() == Some(name)).map(|(at, _)| at);
        found.and_then(|(namespace, rule)| file.place(namespace, Some(rule))).unwrap_or_default()
    };
    look_at_rules(&FileRules::of(file, target), place, checked);
}

/// What rules that are in one namespace come to. `place` says where one of them stands, or all.
fn look_at_rules(rules: &FileRules, place: impl Fn(Option<&RuleName>) -> Position, checked: &mut Checked) {
    if rules.count() > MOST_FOR_SHADOWS {
        let problem =
            rules.compiled().err().map(|message| Problem { place: place(None), message, hint: None });
        return checked.problems.extend(problem);
    }
    let shadowed = match rules.shadowed() {
        Ok(shadowed) => shadowed,
        Err(message) => {
            return checked.problems.push(Problem { place: place(None), message, hint: None });
        }
    };
    for shadow in shadowed.iter().filter(|shadow| shadow.why == ShadowedBy::Rules) {
        let message = format!("rule `{}`: {}", shadow.rule, never(shadow));
        checked.warnings.push(Problem { place: place(Some(&shadow.rule)), message, hint: None });
    }
}
