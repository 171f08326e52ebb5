//! What the kernel program and user space share: the ABI of the maps, and the one matching rule.
//!
//! Both sides compile this file. There is no second implementation of the rule anywhere: the kernel program
//! calls [`Image::decide`] for a SYN, the relay calls it for the connection that this SYN became, and
//! the tests call it to check the kernel.
//!
//! | map | type | key | value | writer | reader |
//! | --- | --- | --- | --- | --- | --- |
//! | `RULES` | array of maps, 1 × array, 1 | 0, 0 | [`image`], [`constant::WORDS`] | user space, whole | program |
//! | `LISTENERS` | SOCKMAP, [`SLOTS`] | [`slot`] | socket (cookie when read) | user space | program |
//! | `BYPASS` | hash, [`MAX_BYPASS`], one for all namespaces | [`BypassKey`] | 1 | user space | program |
//! | `OWN_LISTENERS` | SOCKHASH, [`MAX_OWN_LISTENERS`], one for all namespaces | [`OwnListener`] | socket (cookie when read) | user space | program |
//! | `COUNTERS` | per-CPU array, as many as user space says | [`counters_of`] | [`Counters`] | program | user space |
//!
//! What is the same for each packet of a namespace is in constants ([`constant`]) that user space sets before it loads the
//! program: the kernel leaves out what they exclude.
//!
//! Every type here is integers with its padding written out, so that `bytemuck` can prove that there is none left.

#![no_std]
#![forbid(unsafe_code)]

mod abi;
mod counters;
mod decision;
mod flow;
pub mod image;
mod lookup;

pub use abi::ABI_MARK;
pub use counters::{Counters, UNAVAILABLE_REASONS, Unavailable};
pub use decision::{Action, Decision, FLAG_DOWN};
pub use flow::{FAMILY_IPV4, FAMILY_IPV6, Flow, Kind, PROTOCOL_TCP, PROTOCOL_UDP, Packet};
pub use lookup::{Image, Words};

/// Rules that one namespace can have.
pub const MAX_RULES: usize = 16_384;

/// Consumers that one namespace can have. Consumer 0 is the relay.
pub const MAX_CONSUMERS: usize = 16;

/// The relay's consumer number.
pub const CONSUMER_RELAY: u32 = 0;

/// Behind the consumers: whose listeners have a filter that takes nothing.
pub const CONSUMER_BLACK_HOLE: u32 = MAX_CONSUMERS as u32;

/// Length of the SOCKMAP `LISTENERS`: for each consumer, and for the black hole, a socket of each protocol and family.
pub const SLOTS: usize = 4 * (MAX_CONSUMERS + 1);

/// Capacity of the bypass map: local onward connections that can be open at once in all namespaces.
pub const MAX_BYPASS: usize = 65_536;

/// Capacity of `OWN_LISTENERS`: listeners of hand-offs that can be open at once in all namespaces.
pub const MAX_OWN_LISTENERS: usize = 16_384;

/// The key in `COUNTERS` of what no rule takes (`passed`), and of what was for a listener of ours by its own address
/// (`rejected`).
pub const COUNTERS_OF_NETNS: u32 = 0;

/// The key in `COUNTERS` of a rule ([`Decision::rule`]).
#[inline(always)]
#[must_use]
pub const fn counters_of(rule: u32) -> u32 {
    1 + rule
}

/// Names of the program's constants, 32 bits each. All of them have to be set.
pub mod constant {
    /// [`crate::BypassKey::netns`].
    pub const NETNS: &str = "NETNS";
    /// The length of images, in words, a power of 2. An image of another length needs a program of its own, and a map.
    pub const WORDS: &str = "WORDS";
    /// What the program looks at: [`crate::image::looks`]. An image that asks for more needs a program of its own.
    pub const LOOKS: &str = "LOOKS";
    /// 1: the program reads the ingress interface of each packet. Minimum kernel 5.17.
    pub const READS_INGRESS: &str = "READS_INGRESS";
    /// What the program takes for the ingress interface where it does not read it.
    pub const GIVEN_INGRESS: &str = "GIVEN_INGRESS";
}

/// The key in `LISTENERS` of a consumer's socket for one kind of packets.
#[inline(always)]
#[must_use]
pub const fn slot_of(consumer: u32, kind: Kind) -> u32 {
    consumer * 4 + kind.number()
}

/// The key in `LISTENERS` of a consumer's socket of one protocol ([`PROTOCOL_TCP`] or [`PROTOCOL_UDP`]) and one family
/// ([`FAMILY_IPV4`] or [`FAMILY_IPV6`]).
#[inline(always)]
#[must_use]
pub const fn slot(consumer: u32, protocol: u32, family: u32) -> u32 {
    slot_of(consumer, Kind::of(protocol, family))
}

/// Whether a key in `LISTENERS` is of a consumer that another program is: the relay takes care of its own listeners.
#[must_use]
pub const fn is_of_hand_off(slot: u32) -> bool {
    let consumer = slot / 4;
    consumer != CONSUMER_RELAY && consumer != CONSUMER_BLACK_HOLE
}

/// A connection that the relay itself makes inside the namespace, from an address to the same address. Both ends are in it:
/// what anybody else sends from its local end to another port is not the relay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BypassKey {
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u32,
    /// The port of the relay's own end, host byte order.
    pub from_port: u32,
    /// The port that it goes to, host byte order.
    pub to_port: u32,
    /// The address of both ends, as [`Flow::local_address`].
    pub address: [u32; 4],
    /// The namespace's number, among those of the daemon. The map is one for all of them: an empty one of this capacity
    /// takes 1 MiB.
    pub netns: u32,
}

/// Where a listener of a hand-off is bound inside its namespace: to `127.0.0.1` or `::1`, by its family. An IPv6 one that is bound
/// to `::ffff:127.0.0.1` counts as IPv4, as the packets that reach it do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct OwnListener {
    /// [`FAMILY_IPV4`] or [`FAMILY_IPV6`].
    pub family: u32,
    /// Its port, host byte order.
    pub port: u32,
    /// As [`BypassKey::netns`].
    pub netns: u32,
}

const _: () = assert!(size_of::<OwnListener>() == 12 && align_of::<OwnListener>() == 4);

const _: () = assert!(size_of::<BypassKey>() == 32 && align_of::<BypassKey>() == 4);
