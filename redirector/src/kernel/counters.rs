//! Reading what the program counts.

use redirector_ebpf::{NetnsCounters, RuleCounters};

use crate::sys::{SyscallError, bpf, named};

/// The per-CPU counters of one instance.
#[derive(Debug)]
pub struct Counters {
    rules: bpf::PerCpuArray<RuleCounters>,
    netns: bpf::PerCpuArray<NetnsCounters>,
}

impl Counters {
    pub(super) fn new(rules: bpf::PerCpuArray<RuleCounters>, netns: bpf::PerCpuArray<NetnsCounters>) -> Self {
        Self { rules, netns }
    }

    /// Decisions of the rule with this index.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn rule(&self, index: u32) -> Result<RuleCounters, SyscallError> {
        let each = named("bpf BPF_MAP_LOOKUP_ELEM RULE_COUNTERS", self.rules.lookup(index))?;
        Ok(RuleCounters::sum(&each))
    }

    /// Begins a rule's counters anew. No published rule set may use the index.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_UPDATE_ELEM`.
    pub fn reset_rule(&self, index: u32) -> Result<(), SyscallError> {
        named("bpf BPF_MAP_UPDATE_ELEM RULE_COUNTERS", self.rules.clear(index))
    }

    /// Decisions that no rule took.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn netns(&self) -> Result<NetnsCounters, SyscallError> {
        let each = named("bpf BPF_MAP_LOOKUP_ELEM NETNS_COUNTERS", self.netns.lookup(0))?;
        Ok(NetnsCounters::sum(&each))
    }
}
