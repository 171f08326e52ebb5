//! What an instance is made of.

use std::os::fd::AsFd as _;

use super::{
    Bypass, Counters, InstanceError, RuleSet,
    loaded::{Counting, Identity, InForce, Loaded, Maps, Shape, load},
    object,
    own_listeners::OwnListeners,
};
use crate::sys::{SyscallError, bpf, named};

/// What a namespace has in the maps that all namespaces share.
#[derive(Debug)]
pub(super) struct Entries {
    pub(super) bypass: Bypass,
    pub(super) own_listeners: OwnListeners,
}

/// A program with its maps, and a rule set in force. It is attached nowhere.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) listeners: bpf::Map<u32, u64>,
    pub(super) bypass: Bypass,
    pub(super) own_listeners: OwnListeners,
    pub(super) counters: Counters,
    pub(super) loaded: Loaded,
}

impl Parts {
    /// Makes them beside a namespace's entries in the maps that all share, with counters for so many rules.
    pub(super) fn make(
        identity: Identity,
        Entries { bypass, own_listeners }: Entries,
        in_force: InForce,
        counted: u32,
    ) -> Result<Self, InstanceError> {
        let listeners = bpf::Map::new(object::make("LISTENERS", None)?);
        let listeners = named("bpf BPF_OBJ_GET_INFO_BY_FD map", listeners)?;
        let counters = Counters::new(counted)?;
        let maps = Maps {
            listeners: listeners.as_fd(),
            bypass: &bypass,
            own_listeners: own_listeners.map().as_fd(),
        };
        let loaded =
            counters.with_last(|map| load(identity, &maps, Counting { map, rules: counted }, in_force))?;
        Ok(Self { listeners, bypass, own_listeners, counters, loaded })
    }

    /// Puts a rule set in the place of the zeros. Nobody reads them, so nobody is waited for.
    pub(super) fn fill(&mut self, rule_set: &RuleSet) -> Result<(), SyscallError> {
        let in_force = &mut self.loaded.in_force;
        self.loaded.twin = rule_set.fill(&in_force.map)?;
        in_force.shape = Shape::of(rule_set);
        Ok(())
    }
}
