//! What a file says of containers itself, which goes before what it has for all that are found.

use std::collections::HashSet;

use crate::{
    config::{Container, RuleName, Target, file::NamespaceSpec},
    locate::ContainerId,
};

/// The rules that a file names with their container.
#[derive(Clone, Debug, Default)]
pub(crate) struct OwnRules {
    rules: HashSet<(Container, RuleName)>,
    /// Those of them whose container is named by what may be an id, or its begin.
    by_id: Vec<(Container, RuleName)>,
}

/// Digits of an id that engines show, and users name containers by.
const SHORT_ID: usize = 12;

impl OwnRules {
    pub(crate) fn of<'a>(namespaces: impl IntoIterator<Item = &'a NamespaceSpec>) -> Self {
        let mut own = Self::default();
        for NamespaceSpec { target, rules, .. } in namespaces {
            let Target::Container(container) = target else { continue };
            let name = &container.name;
            let may_be_id = name.len() >= SHORT_ID && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            for rule in rules.iter().filter_map(|rule| rule.name.clone()) {
                if may_be_id {
                    own.by_id.push((container.clone(), rule.clone()));
                }
                own.rules.insert((container.clone(), rule));
            }
        }
        own
    }

    /// Those of both.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.rules.extend(other.rules.iter().cloned());
        self.by_id.extend(other.by_id.iter().cloned());
        self
    }

    /// Whether the file has a rule of that name for this container.
    pub(crate) fn has(&self, container: &Container, id: &ContainerId, rule: &RuleName) -> bool {
        self.rules.contains(&(container.clone(), rule.clone()))
            || self.by_id.iter().any(|(one, name)| {
                name == rule && one.engine == container.engine && id.starts_with(&one.name)
            })
    }
}
