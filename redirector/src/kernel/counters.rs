//! Reading what the program counts.

use std::os::fd::AsFd as _;

use aya::maps::MapData;
use redirector_ebpf::{NetnsCounters, RuleCounters};

use crate::sys::{SyscallError, bpf, named};

/// The per-CPU counters of one instance.
#[derive(Debug)]
pub struct Counters {
    rules: MapData,
    netns: MapData,
}

impl Counters {
    pub(super) fn new(rules: MapData, netns: MapData) -> Self {
        Self { rules, netns }
    }

    /// Decisions of the rule with this index.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn rule(&self, index: u32) -> Result<RuleCounters, SyscallError> {
        let mut each = each_cpu::<RuleCounters>()?;
        let lookup = bpf::map_lookup_each_cpu(self.rules.fd().as_fd(), index, &mut each);
        named("bpf BPF_MAP_LOOKUP_ELEM RULE_COUNTERS", lookup)?;
        Ok(RuleCounters::sum(&each))
    }

    /// Begins a rule's counters anew. No published rule set may use the index.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_UPDATE_ELEM`.
    pub fn reset_rule(&self, index: u32) -> Result<(), SyscallError> {
        let each = each_cpu::<RuleCounters>()?;
        let update = bpf::map_update_each_cpu(self.rules.fd().as_fd(), index, &each);
        named("bpf BPF_MAP_UPDATE_ELEM RULE_COUNTERS", update)
    }

    /// Decisions that no rule took.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn netns(&self) -> Result<NetnsCounters, SyscallError> {
        let mut each = each_cpu::<NetnsCounters>()?;
        let lookup = bpf::map_lookup_each_cpu(self.netns.fd().as_fd(), 0, &mut each);
        named("bpf BPF_MAP_LOOKUP_ELEM NETNS_COUNTERS", lookup)?;
        Ok(NetnsCounters::sum(&each))
    }
}

fn each_cpu<V: bytemuck::Pod>() -> Result<Vec<V>, SyscallError> {
    let cpus = named("read possible CPUs", aya::util::nr_cpus().map_err(|(_, error)| error))?;
    Ok(vec![V::zeroed(); cpus])
}
