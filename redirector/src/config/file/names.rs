//! Names of rules: those that have none get one, and no two of a target are the same.

use std::collections::{HashMap, HashSet};

use super::NamespaceSpec;
use crate::config::{RuleName, Target};

/// Gives `rule-N` to each rule without a name, N the lowest that no rule of its target has. Gives the rules whose name
/// another of their target has: which of which namespace, and why that is wrong.
pub fn name_rules(specs: &mut [NamespaceSpec]) -> Vec<(usize, usize, String)> {
    let mut taken: HashMap<Target, HashSet<RuleName>> = HashMap::new();
    let mut twice = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let taken = taken.entry(spec.target.clone()).or_default();
        for (rule, name) in
            spec.rules.iter().enumerate().filter_map(|(at, rule)| Some((at, rule.name.as_ref()?)))
        {
            if !taken.insert(name.clone()) {
                twice.push((
                    index,
                    rule,
                    format!("rule `{name}`: `{}` has a rule of that name already", spec.target),
                ));
            }
        }
    }
    let mut next: HashMap<Target, usize> = HashMap::new();
    for spec in specs {
        let taken = taken.entry(spec.target.clone()).or_default();
        let next = next.entry(spec.target.clone()).or_insert(1);
        for rule in spec.rules.iter_mut().filter(|rule| rule.name.is_none()) {
            while !taken.insert(RuleName::numbered(*next)) {
                *next += 1;
            }
            rule.name = Some(RuleName::numbered(*next));
        }
    }
    twice
}
