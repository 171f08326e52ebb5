//! The packet filters of a namespace: a part of the document of `explain`.

use serde::{Deserialize, Serialize};

use crate::netns::{BaseChain, Family, LegacyTable};

/// The packet filters of a namespace. They were not run: a packet that they drop, or send elsewhere, has another fate than the
/// one that is told.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NetfilterView {
    /// The base chains of nf_tables, of all families.
    pub base_chains: Vec<BaseChainView>,
    /// How many more there are.
    pub base_chains_left_out: u64,
    /// Why base chains are not told, a phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_chains_unknown: Option<String>,
    /// The tables of legacy iptables that the kernel has made there; they may hold no rules.
    pub legacy_tables: Vec<LegacyTableView>,
    /// Why tables are not told, a phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub legacy_tables_unknown: Option<String>,
}

/// A base chain of nf_tables.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BaseChainView {
    /// `ip`, `ip6`, `inet`, `arp`, `bridge` or `netdev`.
    pub family: String,
    /// The name of its table.
    pub table: String,
    /// Its own name.
    pub chain: String,
    /// `filter`, `nat` or `route`.
    #[serde(rename = "type")]
    pub kind: String,
    /// As `nft` writes it, `prerouting` for example.
    pub hook: String,
    /// Chains with a lower number come first.
    pub priority: i32,
    /// `accept` or `drop`.
    pub policy: String,
    /// How many rules it has.
    pub rules: u32,
    /// The devices that it is bound to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// What it could do about a packet or its answer, a phrase.
    pub could: String,
}

/// A table of legacy iptables.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LegacyTableView {
    /// `ipv4` or `ipv6`.
    pub family: Family,
    /// `filter`, `nat`, `mangle`, `raw` or `security`.
    pub table: String,
    /// What it could do about a packet or its answer, a phrase.
    pub could: String,
}

impl From<BaseChain> for BaseChainView {
    fn from(found: BaseChain) -> Self {
        let BaseChain { family, table, name, kind, hook, priority, policy, rules, devices } = found;
        let could = chain_could(&family, &kind, &hook).into();
        Self { family, table, chain: name, kind, hook, priority, policy, rules, devices, could }
    }
}

impl From<LegacyTable> for LegacyTableView {
    fn from(LegacyTable { family, name }: LegacyTable) -> Self {
        let could = table_could(&name).into();
        Self { family, table: name, could }
    }
}

const REDIRECTS: &str = "it can give the packet another destination (DNAT, REDIRECT) before steering, which then decides about that";
const LOOKS_UP: &str = "before steering it can drop the packet, give it to a socket (TPROXY), or have the rules asked once more (`socket`)";
const DROPS: &str = "it can drop the packet before steering";

fn chain_could(family: &str, kind: &str, hook: &str) -> &'static str {
    match (family, hook, kind) {
        ("arp", ..) => "it can drop ARP, without which nothing comes by IPv4",
        (_, "prerouting", "nat") => REDIRECTS,
        (_, "prerouting", _) if family != "bridge" => LOOKS_UP,
        (_, "input", "nat") => "it can give the packet another source before steering",
        (_, "forward", _) => "it does not see what is delivered in this namespace",
        (_, "output", "nat") => {
            "it can give what the namespace itself sends another destination (DNAT, REDIRECT) before steering"
        }
        (_, "postrouting", "nat") => "it can give what the namespace itself sends another source",
        (_, "output" | "postrouting" | "egress", _) => {
            "it can drop the answer: then the packet is steered, and no connection is accepted"
        }
        _ => DROPS,
    }
}

fn table_could(name: &str) -> &'static str {
    match name {
        "nat" => REDIRECTS,
        "mangle" => LOOKS_UP,
        "filter" => "it can drop the packet before steering, or the answer",
        _ => DROPS,
    }
}
