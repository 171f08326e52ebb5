//! A rule, and what a namespace adds to it.

use redirector_ebpf::CONSUMER_RELAY;

use crate::config::Rule;

/// A rule's place in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Placed<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// Into the rule counters.
    pub index: u32,
    /// Whose listeners get what it steers: below 256.
    pub consumer: u32,
    /// Bits of [`redirector_ebpf::Decision::flags`].
    pub flags: u32,
    /// Indices of the interfaces that the rule names, as far as they are there: those by which comes what it takes, or
    /// does not, as it says. Without a name it takes what comes by any.
    pub interfaces: &'a [u32],
}

impl<'a> Placed<'a> {
    /// One that is up, of the relay's, in a namespace with no interface that it names.
    #[must_use]
    pub fn new(rule: &'a Rule, index: u32) -> Self {
        Self { rule, index, consumer: CONSUMER_RELAY, flags: 0, interfaces: &[] }
    }
}
