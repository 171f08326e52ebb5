//! What the kernel program and user space share: the ABI of the maps, and the one matching rule.
//!
//! Both sides compile this file. There is no second implementation of the rule anywhere: the kernel program
//! calls [`Words::decide`] for a SYN, the relay calls it for the connection that this SYN became, and
//! the tests call it to check the kernel.
//!
//! | map | type | key | value | writer | reader |
//! | --- | --- | --- | --- | --- | --- |
//! | `RULES_SMALL`, `RULES_MEDIUM`, `RULES_LARGE` | array of maps, 1 × array, 1 | 0, 0 | [`Words`] | user space, whole | program |
//! | `LISTENERS` | SOCKMAP, [`SLOTS`] | [`slot`] | socket (cookie when read) | user space | program |
//! | `BYPASS` | hash, [`MAX_BYPASS`] | [`BypassKey`] | 1 | user space | program |
//! | `RULE_COUNTERS` | per-CPU array, [`MAX_RULES`] | [`Decision::rule`] | [`RuleCounters`] | program | user space |
//! | `NETNS_COUNTERS` | per-CPU array, 1 | 0 | [`NetnsCounters`] | program | user space |
//!
//! Every type here is integers with its padding written out, so that `bytemuck` can prove that there is none left.

#![no_std]
#![forbid(unsafe_code)]

mod abi;
mod counters;
mod decision;
mod flow;
pub mod image;

pub use abi::ABI_MARK;
pub use counters::{NetnsCounters, RuleCounters, UNAVAILABLE_REASONS, Unavailable};
pub use decision::{Action, Decision, FLAG_DOWN};
pub use flow::{FAMILY_IPV4, FAMILY_IPV6, Flow, PROTOCOL_TCP};
pub use image::Words;

/// Rules that one namespace can have: the length of `RULE_COUNTERS`.
pub const MAX_RULES: usize = 128;

/// Consumers that one namespace can have. Consumer 0 is the relay.
pub const MAX_CONSUMERS: usize = 16;

/// The relay's consumer number.
pub const CONSUMER_RELAY: u32 = 0;

/// Behind the consumers: whose listeners have a filter that takes nothing.
pub const CONSUMER_BLACK_HOLE: u32 = MAX_CONSUMERS as u32;

/// Length of the SOCKMAP `LISTENERS`: an IPv4 and an IPv6 listener for each consumer, and for the black hole.
pub const SLOTS: usize = 2 * (MAX_CONSUMERS + 1);

/// Capacity of the bypass map: local onward connections that can be open at once in one namespace.
pub const MAX_BYPASS: usize = 65_536;

/// The key of a consumer's listener of one family ([`FAMILY_IPV4`] or [`FAMILY_IPV6`]) in `LISTENERS`.
#[inline(always)]
#[must_use]
pub const fn slot(consumer: u32, family: u32) -> u32 {
    consumer * 2 + (family == FAMILY_IPV6) as u32
}

/// The local end of a connection that the relay itself makes inside the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BypassKey {
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u32,
    /// Host byte order.
    pub port: u32,
    /// As [`Flow::local_address`].
    pub address: [u32; 4],
}

const _: () = assert!(size_of::<BypassKey>() == 24 && align_of::<BypassKey>() == 4);
