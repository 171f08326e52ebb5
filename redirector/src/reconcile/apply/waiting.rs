//! Rules of a file that wait: their container is not running, or they cannot be in force where it is. Pure.

use std::collections::HashMap;

use super::wanted::{Waits, Wanted};
use crate::{
    config::{Container, RuleName},
    steer::RuleState,
};

/// All of them, by name.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    list: Vec<(Waits, Wanted)>,
    by_name: HashMap<RuleName, Vec<usize>>,
}

impl Waiting {
    pub(super) fn new(list: Vec<(Waits, Wanted)>) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for (index, (_, one)) in list.iter().enumerate() {
            by_name.entry(one.rule.name.clone()).or_default().push(index);
        }
        Self { list, by_name }
    }

    pub(super) fn all(&self) -> &[(Waits, Wanted)] {
        &self.list
    }

    /// Those that have a rule's name and follow one of the containers that it follows.
    fn namesakes<'a>(
        &'a self,
        name: &RuleName,
        owners: &'a [Container],
    ) -> impl Iterator<Item = &'a (Waits, Wanted)> {
        let named = self.by_name.get(name).into_iter().flatten().map(|index| &self.list[*index]);
        named.filter(|(_, one)| one.containers().any(|container| owners.contains(container)))
    }

    /// Whether a rule that follows these waits, as it is or otherwise.
    pub(super) fn has(&self, name: &RuleName, owners: &[Container]) -> bool {
        self.namesakes(name, owners).next().is_some()
    }

    /// Whether a rule stays in a namespace until the one that waits for its container can come: it says the same, or it is that
    /// of a container that was found, which is changed when it can be.
    pub(super) fn keeps(
        &self,
        there: &RuleState,
        owners: &[Container],
        is_found: impl Fn(usize) -> bool,
    ) -> bool {
        let mut namesakes = self.namesakes(&there.rule.name, owners);
        namesakes.any(|(waits, one)| one.rule.is_like(&there.rule) || is_found(waits.entry))
    }
}
