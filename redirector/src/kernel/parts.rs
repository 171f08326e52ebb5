//! What an instance is made of.

use std::{os::fd::AsFd as _, sync::Arc};

use super::{
    Bypass, Counters, Ingress, InstanceError, RuleSet, Shared,
    loaded::{InForce, Loaded, Maps, Shape, identity, load},
    object,
    own_listeners::OwnListeners,
};
use crate::sys::{SyscallError, bpf, named};

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
    /// Makes them, with counters for so many rules.
    pub(super) fn make(
        shared: &Shared,
        in_force: InForce,
        counted: u32,
        ingress: Ingress,
    ) -> Result<Self, InstanceError> {
        let listeners = bpf::Map::new(object::make("LISTENERS", None)?);
        let listeners = named("bpf BPF_OBJ_GET_INFO_BY_FD map", listeners)?;
        let ((bypass, own_listeners), counters) = (shared.of_one_more()?, Counters::new(counted)?);
        let maps = Maps {
            listeners: listeners.as_fd(),
            bypass: &bypass,
            own_listeners: own_listeners.map().as_fd(),
        };
        let identity = identity(shared, ingress);
        let loaded = counters.with_last(|last| load(identity, &maps, (last, counted), in_force))?;
        Ok(Self { listeners, bypass, own_listeners, counters, loaded })
    }

    /// Makes them for rule sets of a shape. What is in force is an image of zeros: no program must run on it.
    pub(super) fn blank(shared: &Shared, shape: Shape, counted: u32) -> Result<Self, InstanceError> {
        let map = named("bpf BPF_MAP_CREATE rule set", bpf::array_of_bytes(shape.size(), "rules"))?;
        Self::make(shared, InForce { map: Arc::new(map), shape }, counted, Ingress::Read)
    }

    /// Puts a rule set in the place of the zeros. Nobody reads them, so nobody is waited for.
    pub(super) fn fill(&mut self, rule_set: &RuleSet) -> Result<(), SyscallError> {
        let in_force = &mut self.loaded.in_force;
        self.loaded.twin = rule_set.fill(&in_force.map)?;
        in_force.shape = Shape::of(rule_set);
        Ok(())
    }
}
