//! `redirector check`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use redirector_ebpf::MAX_RULES;
use serde::Serialize;

use super::{args, exit::Failure, file::Source, output};
use crate::{
    config::{
        Rule,
        file::{ConfigFile, Problem, schema},
    },
    control::SCHEMA,
    matcher::{Placed, compile},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Checked {
    schema: u32,
    /// By their place in the file.
    problems: Vec<Problem>,
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
    let (file, problems) = match source.parse() {
        Ok(file) => {
            let problems = too_much(&file);
            (file, problems)
        }
        Err(problems) => (ConfigFile::default(), problems),
    };
    let namespaces = file.namespaces.len();
    let rules = file.namespaces.iter().map(|one| one.rules.len()).sum();
    if command.json {
        let checked = Checked { schema: SCHEMA, problems: problems.clone(), namespaces, rules };
        output::json(&mut out, &checked)?;
    }
    if !problems.is_empty() {
        return Err(source.refuse(&problems));
    }
    if !command.json {
        writeln!(
            out,
            "{}: no problems; {namespaces} namespaces, {rules} rules",
            path.display().to_string().escape_debug()
        )?;
    }
    Ok(())
}

/// Targets whose rules cannot be compiled together.
fn too_much(file: &ConfigFile) -> Vec<Problem> {
    let mut targets: BTreeMap<String, (usize, Vec<Rule>)> = BTreeMap::new();
    for (index, namespace) in file.namespaces.iter().enumerate() {
        let (_, rules) = targets.entry(namespace.target.to_string()).or_insert((index, Vec::new()));
        rules.extend(namespace.rules());
    }
    let compiled = targets.into_iter().filter_map(|(target, (index, rules))| {
        if rules.len() > MAX_RULES {
            let message =
                format!("target `{target}`: {} rules, and a namespace has at most {MAX_RULES}", rules.len());
            return Some(Problem { place: file.place(index, None).unwrap_or_default(), message, hint: None });
        }
        let placed = (0..).zip(&rules).map(|(index, rule)| Placed::new(rule, index));
        let error = compile(placed).err()?;
        let place = file.place(index, None).unwrap_or_default();
        Some(Problem { place, message: format!("target `{target}`: {error}"), hint: None })
    });
    compiled.collect()
}
