//! Which packet filters a namespace has: the base chains of nf_tables, and the tables of legacy iptables. Called inside it, see
//! [`super::enter()`].
//!
//! Only where they are hooked in is asked, not what their rules say. nf_tables is asked by netlink (`NFT_MSG_GETCHAIN`), legacy
//! iptables by `/proc`: hook lists, which would have both, are compiled out of many kernels.
//!
//! The few attributes are read here, and not by `netlink-packet-netfilter`: one chain whose name is not UTF-8 would hide all.

use std::{
    fs,
    io::{self, ErrorKind},
    ops::ControlFlow,
};

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkSerializable,
    NlaBuffer, NlasIterator,
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};
use nix::libc::{
    EAFNOSUPPORT, EINVAL, EOPNOTSUPP, EPROTONOSUPPORT, NFNL_SUBSYS_NFTABLES, NFPROTO_ARP, NFPROTO_BRIDGE,
    NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6, NFPROTO_NETDEV, NFT_MSG_GETCHAIN, NFT_MSG_NEWCHAIN,
};

use super::{Family, netlink};
use crate::sys::inject::point;

/// Whoever is in the namespace decides how many chains there are.
const MOST_CHAINS: usize = 1000;

/// The packet filters of a namespace. What the kernel does not tell is the reason, a phrase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netfilter {
    /// The base chains of nf_tables.
    pub base_chains: Result<BaseChains, String>,
    /// The tables of legacy iptables that are there; they may hold no rules.
    pub legacy_tables: Result<Vec<LegacyTable>, String>,
}

/// Some base chains, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseChains {
    /// In the order in which the kernel tells them.
    pub chains: Vec<BaseChain>,
    /// Those that are not among them.
    pub left_out: u64,
}

/// A chain of nf_tables that the kernel runs packets through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BaseChain {
    /// `ip`, `ip6`, `inet`, `arp`, `bridge` or `netdev`.
    pub family: String,
    /// The name of its table.
    pub table: String,
    /// Its own name.
    pub name: String,
    /// `filter`, `nat` or `route`.
    pub kind: String,
    /// As `nft` writes it, `prerouting` for example.
    pub hook: String,
    /// Chains with a lower number come first.
    pub priority: i32,
    /// What becomes of a packet that no rule decides about: `accept` or `drop`.
    pub policy: String,
    /// How many rules it has.
    pub rules: u32,
    /// The devices that it is bound to, where it is bound to some.
    pub devices: Vec<String>,
}

/// A table of legacy iptables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyTable {
    /// Whose packets go through it.
    pub family: Family,
    /// `filter`, `nat`, `mangle`, `raw` or `security`.
    pub name: String,
}

/// Looks at the namespace of this thread.
#[must_use]
pub fn netfilter() -> Netfilter {
    Netfilter { base_chains: base_chains(), legacy_tables: legacy_tables() }
}

fn base_chains() -> Result<BaseChains, String> {
    let mut found = BaseChains::default();
    let asked = dump(|chain| {
        if found.chains.len() < MOST_CHAINS {
            found.chains.push(chain);
        } else {
            found.left_out += 1;
        }
    });
    match asked.map_err(|error| (error.raw_os_error(), error)) {
        Ok(()) => Ok(found),
        // The kernel was built without it, or its module is not there.
        Err((Some(EPROTONOSUPPORT | EAFNOSUPPORT | EINVAL | EOPNOTSUPP), _)) => {
            Err("this kernel has no nf_tables, or none that can be asked".into())
        }
        Err((_, error)) => Err(format!("nf_tables cannot be asked: {error}")),
    }
}

fn dump(mut each: impl FnMut(BaseChain)) -> io::Result<()> {
    let socket = Socket::new(NETLINK_NETFILTER)?;
    point("sendto NETLINK_NETFILTER")?;
    netlink::send(&socket, GetChains, NLM_F_REQUEST | NLM_F_DUMP)?;
    netlink::answers(&socket, |Answer(chain)| {
        chain.into_iter().for_each(&mut each);
        ControlFlow::Continue(())
    })
}

fn legacy_tables() -> Result<Vec<LegacyTable>, String> {
    let mut tables = Vec::new();
    for (family, file) in [(Family::Ipv4, "ip_tables_names"), (Family::Ipv6, "ip6_tables_names")] {
        let path = format!("/proc/thread-self/net/{file}");
        match fs::read_to_string(&path) {
            Ok(names) => tables.extend(names.lines().map(|name| LegacyTable { family, name: name.into() })),
            // This kernel has no legacy iptables, or nobody has ever used it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("read `{path}`: {error}")),
        }
    }
    Ok(tables)
}

/// `struct nfgenmsg`: family, version, and a number in two bytes.
const HEADER: usize = 4;

/// A message of the subsystem nf_tables.
const fn message(kind: i32) -> u16 {
    (NFNL_SUBSYS_NFTABLES << 8 | kind) as u16
}

/// A question for the chains of all families: its header is all zeros.
struct GetChains;

impl NetlinkSerializable for GetChains {
    fn message_type(&self) -> u16 {
        message(NFT_MSG_GETCHAIN)
    }

    fn buffer_len(&self) -> usize {
        HEADER
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.fill(0);
    }
}

/// One answer. Chains that are not hooked in are none.
struct Answer(Option<BaseChain>);

impl NetlinkDeserializable for Answer {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        if header.message_type != message(NFT_MSG_NEWCHAIN) {
            return Ok(Self(None));
        }
        let (head, attributes) = payload
            .split_at_checked(HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        base_chain(head[0], attributes).map(Self)
    }
}

/// Attributes of a chain (`enum nft_chain_attributes`, include/uapi/linux/netfilter/nf_tables.h).
mod attribute {
    pub(super) const TABLE: u16 = 1;
    pub(super) const NAME: u16 = 3;
    pub(super) const HOOK: u16 = 4;
    pub(super) const POLICY: u16 = 5;
    /// For a base chain, which nothing jumps to: its rules.
    pub(super) const USE: u16 = 6;
    pub(super) const TYPE: u16 = 7;

    /// Attributes of its hook (`enum nft_hook_attributes`).
    pub(super) mod hook {
        pub(in super::super) const NUMBER: u16 = 1;
        pub(in super::super) const PRIORITY: u16 = 2;
        pub(in super::super) const DEVICE: u16 = 3;
        /// Each is a string.
        pub(in super::super) const DEVICES: u16 = 4;
    }
}

/// `None` for a chain that is not hooked in.
fn base_chain(family: u8, attributes: &[u8]) -> Result<Option<BaseChain>, DecodeError> {
    let mut chain = BaseChain {
        family: family_name(family),
        // What the kernel tells only of some.
        policy: "accept".into(),
        ..BaseChain::default()
    };
    let mut is_base = false;
    for one in NlasIterator::new(attributes) {
        let one = one?;
        match one.kind() {
            attribute::TABLE => chain.table = string(&one),
            attribute::NAME => chain.name = string(&one),
            attribute::TYPE => chain.kind = string(&one),
            attribute::USE => chain.rules = number(&one),
            attribute::POLICY if number(&one) == 0 => chain.policy = "drop".into(),
            attribute::HOOK => {
                is_base = true;
                for part in NlasIterator::new(one.value()) {
                    let part = part?;
                    match part.kind() {
                        attribute::hook::NUMBER => chain.hook = hook_name(family, number(&part)),
                        attribute::hook::PRIORITY => chain.priority = number(&part).cast_signed(),
                        attribute::hook::DEVICE => chain.devices = vec![string(&part)],
                        attribute::hook::DEVICES => {
                            let devices = NlasIterator::new(part.value());
                            chain.devices = devices
                                .map(|device| device.map(|device| string(&device)))
                                .collect::<Result<_, _>>()?;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(is_base.then_some(chain))
}

/// Without the zero at its end.
fn string(attribute: &NlaBuffer<&[u8]>) -> String {
    let bytes = attribute.value();
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// 0 where it is none.
fn number(attribute: &NlaBuffer<&[u8]>) -> u32 {
    attribute.value().try_into().map(u32::from_be_bytes).unwrap_or_default()
}

fn family_name(family: u8) -> String {
    match i32::from(family) {
        NFPROTO_INET => "inet".into(),
        NFPROTO_IPV4 => "ip".into(),
        NFPROTO_IPV6 => "ip6".into(),
        NFPROTO_ARP => "arp".into(),
        NFPROTO_BRIDGE => "bridge".into(),
        NFPROTO_NETDEV => "netdev".into(),
        other => other.to_string(),
    }
}

/// Families number their hooks differently (`enum nf_inet_hooks`, `nf_dev_hooks`, include/uapi/linux/netfilter_arp.h).
fn hook_name(family: u8, hook: u32) -> String {
    let names: &[&str] = match i32::from(family) {
        NFPROTO_NETDEV => &["ingress", "egress"],
        NFPROTO_ARP => &["input", "output", "forward"],
        _ => &["prerouting", "input", "forward", "output", "postrouting", "ingress"],
    };
    let name = usize::try_from(hook).ok().and_then(|hook| names.get(hook));
    name.map_or_else(|| hook.to_string(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute as the kernel writes it.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_chain_is_read_whatever_its_name_is_and_one_without_a_hook_is_none() {
        let hook = [
            attribute(attribute::hook::NUMBER, &1_u32.to_be_bytes()),
            attribute(attribute::hook::PRIORITY, &(-150_i32).to_be_bytes()),
            // Of a newer kernel.
            attribute(99, b"?"),
        ];
        let named = [
            attribute(attribute::TABLE, b"t\xff\0"),
            attribute(attribute::NAME, b"c\0"),
            attribute(attribute::POLICY, &0_u32.to_be_bytes()),
            attribute(attribute::USE, &3_u32.to_be_bytes()),
            attribute(attribute::TYPE, b"filter\0"),
        ];
        let named = named.concat();
        assert_eq!(base_chain(1, &named).unwrap(), None);
        let found = base_chain(1, &[named, attribute(attribute::HOOK, &hook.concat())].concat()).unwrap();
        let expected = BaseChain {
            family: "inet".into(),
            table: "t\u{fffd}".into(),
            name: "c".into(),
            kind: "filter".into(),
            hook: "input".into(),
            priority: -150,
            policy: "drop".into(),
            rules: 3,
            devices: Vec::new(),
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn hooks_are_named_as_their_family_numbers_them() {
        for (family, hook, name) in [
            (NFPROTO_IPV4, 0, "prerouting"),
            (NFPROTO_IPV6, 3, "output"),
            (NFPROTO_INET, 5, "ingress"),
            (NFPROTO_NETDEV, 0, "ingress"),
            (NFPROTO_NETDEV, 1, "egress"),
            (NFPROTO_ARP, 0, "input"),
            (NFPROTO_BRIDGE, 9, "9"),
        ] {
            assert_eq!(hook_name(u8::try_from(family).unwrap(), hook), name);
        }
    }
}
