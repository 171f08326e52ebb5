//! The total order of cells: which one decides when several match.

use std::cmp::Ordering;

use crate::config::{Match, Protocol, Rule, Source};

/// What the order looks at, of one cell: one match of a rule with one of its sources and one of its interfaces. The lesser comes first and decides.
///
/// In this order: the higher priority; `tcp` or `udp` before `any`; the longer destination prefix; fewer ports in the match;
/// the longer source prefix; a named interface before all but a named one, and that before any; the rule's name in byte order.
/// Prefixes of different families are compared by length too, which decides nothing: no packet matches both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Precedence<'a> {
    /// The rule's.
    pub(super) priority: i32,
    /// The match's.
    pub(super) protocol: Protocol,
    /// 0 to 128; 0 without an address.
    pub(super) destination_prefix_length: u8,
    /// 1 to 65,535.
    pub(super) ports: u32,
    /// 0 to 128; 0 without a source.
    pub(super) source_prefix_length: u8,
    /// Whether the rule names interfaces.
    pub(super) interfaces: Interfaces,
    /// Unique in a namespace.
    pub(super) rule_name: &'a [u8],
}

/// Whether a rule is for some interfaces. The greater comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Interfaces {
    /// It is for whatever interface.
    All,
    /// It is for all but those that it names.
    AllBut,
    /// It is for those that it names.
    Named,
}

impl Interfaces {
    /// What a rule says of them.
    pub(super) fn of(rule: &Rule) -> Self {
        if rule.interfaces.is_empty() {
            Self::All
        } else if rule.excludes_interfaces() {
            Self::AllBut
        } else {
            Self::Named
        }
    }
}

impl<'a> Precedence<'a> {
    /// Of a cell of a rule.
    pub(super) fn of(rule: &'a Rule, matching: &Match, source: Option<Source>) -> Self {
        Self {
            priority: rule.priority,
            protocol: matching.protocol,
            destination_prefix_length: matching.prefix.map_or(0, |prefix| prefix.prefix_len()),
            ports: matching.ports.len(),
            source_prefix_length: source.map_or(0, |source| source.0.prefix_len()),
            interfaces: Interfaces::of(rule),
            rule_name: rule.name.as_str().as_bytes(),
        }
    }
}

impl Ord for Precedence<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let Self {
            priority,
            protocol,
            destination_prefix_length,
            ports,
            source_prefix_length,
            interfaces,
            rule_name,
        } = self;
        let is_any = |protocol: Protocol| protocol == Protocol::Any;
        (other.priority.cmp(priority))
            .then(is_any(*protocol).cmp(&is_any(other.protocol)))
            .then(other.destination_prefix_length.cmp(destination_prefix_length))
            .then(ports.cmp(&other.ports))
            .then(other.source_prefix_length.cmp(source_prefix_length))
            .then(other.interfaces.cmp(interfaces))
            .then(rule_name.cmp(&other.rule_name))
    }
}

impl PartialOrd for Precedence<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
