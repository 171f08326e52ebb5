//! Names of rules: those that have none get one, and no two of a target are the same.

use std::collections::{HashMap, HashSet};

use super::{DiscoverSpec, NamespaceSpec};
use crate::config::{RuleName, RuleSpec, Target};

/// Rules that have names of their own, and which of which namespace each is.
#[derive(Default)]
struct Group<'a> {
    rules: Vec<&'a mut RuleSpec>,
    places: Vec<(usize, usize)>,
}

/// Gives `rule-N` to each rule without a name, N the lowest that no rule of its target has. Gives the rules whose name
/// another of their target has: which of which namespace, and why that is wrong.
pub fn name_rules(specs: &mut [NamespaceSpec]) -> Vec<(usize, usize, String)> {
    let mut groups: HashMap<Target, Group<'_>> = HashMap::new();
    for (namespace, spec) in specs.iter_mut().enumerate() {
        let group = groups.entry(spec.target.clone()).or_default();
        group.places.extend((0..spec.rules.len()).map(|rule| (namespace, rule)));
        group.rules.extend(&mut spec.rules);
    }
    let mut twice = Vec::new();
    for (target, Group { mut rules, places }) in groups {
        for (index, name) in name_each(&mut rules, RuleName::numbered) {
            let (namespace, rule) = places[index];
            let why = format!("rule `{name}`: `{target}` has a rule of that name already");
            twice.push((namespace, rule, why));
        }
    }
    twice.sort();
    twice
}

/// Gives `found-N` to each rule without a name, N the lowest that no rule for found containers has: one container may be found
/// several times. Gives the rules whose name another of their discover has: which of which, and why that is wrong.
pub fn name_found_rules(specs: &mut [DiscoverSpec]) -> Vec<(usize, usize, String)> {
    let mut twice = Vec::new();
    for (discover, spec) in specs.iter().enumerate() {
        let mut taken = HashSet::new();
        for (rule, name) in
            spec.rules.iter().enumerate().filter_map(|(rule, spec)| Some((rule, spec.name.as_ref()?)))
        {
            if !taken.insert(name) {
                let why = format!("rule `{name}`: this `[[discover]]` has a rule of that name already");
                twice.push((discover, rule, why));
            }
        }
    }
    name_each(&mut specs.iter_mut().flat_map(|spec| &mut spec.rules).collect::<Vec<_>>(), RuleName::found);
    twice
}

/// Gives a name to each rule without one, with the lowest number that none of them has. Gives those whose name one before has.
fn name_each(rules: &mut [&mut RuleSpec], numbered: impl Fn(usize) -> RuleName) -> Vec<(usize, RuleName)> {
    let (mut taken, mut twice) = (HashSet::new(), Vec::new());
    for (index, name) in
        rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.name.clone()?)))
    {
        if !taken.insert(name.clone()) {
            twice.push((index, name));
        }
    }
    let mut next = 1;
    for rule in rules.iter_mut().filter(|rule| rule.name.is_none()) {
        while !taken.insert(numbered(next)) {
            next += 1;
        }
        rule.name = Some(numbered(next));
    }
    twice
}
