//! The documents of `explain`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    Availability, BystanderKind, Decider, IngressBy, NamespaceState, ReasonKind, Runs, ShadowedBy,
    SocketKind, health::HealthView, netfilter::NetfilterView,
};
use crate::{
    config::{
        Destination, FlowSpec, Interface, Match, OnUnavailable, Origin, Rule, RuleName, Source, Target,
        Transport,
    },
    matcher::{Missed, Shadow},
    netns::Family,
};

/// Body of `POST /v1/explain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Which namespace.
    pub target: Target,
    /// Which packet.
    pub flow: FlowSpec,
    /// Say of each rule why it did not match, and not of the first [`MOST_REASONS`] only.
    #[serde(default)]
    pub all_reasons: bool,
}

/// Rules of which is said why they did not match, unless more is asked for.
pub const MOST_REASONS: usize = 20;

/// Answer to `POST /v1/explain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// As it was named when it was attached.
    pub target: Target,
    /// The netns cookie.
    pub cookie: u64,
    /// Is the namespace steered? Where it is detached, the rule is the one that would take the packet.
    pub state: NamespaceState,
    /// What was asked about.
    pub flow: FlowSpec,
    /// By which interface the packet comes.
    pub ingress: IngressView,
    /// What the namespace's routing says.
    pub fib: FibView,
    /// What becomes of the packet, programs of others apart.
    pub verdict: Verdict,
    /// What its sender hears, a phrase.
    pub peer_sees: String,
    /// Who has decided; `None` where steering never sees the packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<DecidedBy>,
    /// The rule that takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<ExplainedRule>,
    /// It is one of redirector's own connections on its way to the application: the rule takes it, and lets it pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bypassed: bool,
    /// Its destination is a listener of ours by the address that it is bound to inside the namespace, and it gets an RST: from the
    /// relay, or, where the listener was handed off, from the steering program, whatever the rules are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub own_listener: bool,
    /// Who gets it, where that is a socket of redirector's or of a hand-off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<SocketView>,
    /// Why rules before that one did not take it, in their order; every rule where none does.
    pub reasons: Vec<ReasonView>,
    /// How many more there are.
    pub reasons_left_out: u64,
    /// `sk_lookup` programs of others in that namespace, which may decide otherwise, in the order in which they run.
    pub foreign_programs: Vec<ForeignView>,
    /// The packet filters of the namespace, which were not run; `None` where only a file was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netfilter: Option<NetfilterView>,
    /// Sockets of others that the packet may be meant for, and that do not get it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bystanders: Vec<BystanderView>,
    /// How many segments the kernel has dropped in the namespace since it was made where a SYN had reached a listener: counters of
    /// `TcpExt` that are not zero.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub segments_dropped: BTreeMap<String, u64>,
}

/// A socket of somebody else that a rule takes from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BystanderView {
    /// Where it is bound.
    pub address: String,
    /// What it is.
    pub what: BystanderKind,
    /// What that means for the packet, a phrase.
    pub text: String,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A rule's listener gets it.
    Steer,
    /// A rule leaves it to the application's own socket.
    Pass,
    /// RST, or ICMP "port unreachable".
    Reject,
    /// Nobody answers.
    Drop,
    /// No rule takes it: as without redirector.
    Unmatched,
    /// It is not delivered in the namespace: no rule is asked.
    Unreached,
}

impl Verdict {
    /// What becomes of a packet that a rule with this destination takes, while the rule is available.
    #[must_use]
    pub fn of(to: &Destination) -> Self {
        match to {
            Destination::Pass => Self::Pass,
            Destination::Reject => Self::Reject,
            Destination::Drop => Self::Drop,
            _ => Self::Steer,
        }
    }

    /// What the sender of a packet hears, a phrase. `to` is where the rule leads that takes it.
    #[must_use]
    pub fn peer_sees(self, flow: &FlowSpec, to: Option<&Destination>) -> &'static str {
        match (self, flow.protocol) {
            (Self::Steer, _) if to == Some(&Destination::Handoff) => {
                "a connection, which the program that holds the listener accepts"
            }
            (Self::Steer, _) => "a connection, before the destination is reached",
            (Self::Pass | Self::Unmatched, Transport::Tcp) => {
                "what the application's own socket answers; RST where there is none"
            }
            (Self::Pass | Self::Unmatched, Transport::Udp) => {
                "what the application's own socket answers; ICMP port unreachable where there is none"
            }
            (Self::Reject, Transport::Tcp) => "RST",
            (Self::Reject, Transport::Udp) => "ICMP port unreachable",
            (Self::Drop, _) => "no answer",
            (Self::Unreached, _) => "what the namespace's routing makes of it",
        }
    }
}

/// By which interface a packet comes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IngressView {
    /// Its name, as the steering program is told: what the namespace itself sends comes by the interface that has the
    /// destination's address.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// How that is known.
    pub by: IngressBy,
}

/// What the namespace's routing says of a packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FibView {
    /// Whether it is delivered to a socket of the namespace.
    pub local: bool,
    /// The type of the route, the errno, or `rp_filter`, `loopback`, `down`, `foreign_source`, `own_source`, or `unasked`.
    pub kernel: String,
    /// The same, a sentence.
    pub text: String,
}

/// Who has decided.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecidedBy {
    /// By a test run, or by the same rule in user space.
    pub who: Decider,
    /// Why it was not the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The rule that takes a packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainedRule {
    /// Unique in the namespace.
    pub name: RuleName,
    /// As [`super::RuleView::origin`].
    pub origin: Origin,
    /// Where it leads.
    pub to: Vec<Destination>,
    /// Does its destination answer?
    pub state: Availability,
    /// How it fares.
    #[serde(flatten)]
    pub health: HealthView,
    /// Look-ups that it has given to its listener, as [`super::RuleCounts::steered`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steered: Option<u64>,
    /// What of it takes the packet.
    pub cell: CellView,
    /// Of a rule that needs a socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unavailable: Option<OnUnavailableView>,
}

/// One match of a rule with one of its sources and one of its interfaces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CellView {
    /// The match.
    #[serde(rename = "match")]
    pub matching: Match,
    /// `None` where the rule names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Source>,
    /// `None` where the rule names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// What happens while a rule is unavailable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnUnavailableView {
    /// The user's choice.
    pub action: OnUnavailable,
    /// Whether it is unavailable, so that this decides.
    pub decided: bool,
    /// Why it is: errno of the assignment, or `down`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A socket that gets packets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SocketView {
    /// The socket's cookie, as `ss -e` shows it.
    pub cookie: u64,
    /// Whose it is.
    pub what: SocketKind,
    /// `ipv4` or `ipv6`.
    pub family: Family,
    /// Where it is bound inside the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The process that it was handed off to, in the daemon's PID namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Whether it does what it is for, as far as that can be seen.
    pub healthy: bool,
}

impl From<&Missed<'_>> for ReasonView {
    fn from(missed: &Missed<'_>) -> Self {
        let cell = &missed.cell;
        Self {
            rule: cell.rule.name.clone(),
            matching: cell.matching.clone(),
            from: cell.source,
            interfaces: cell.rule.interfaces.clone(),
            kind: missed.why.into(),
            text: missed.to_string(),
        }
    }
}

impl From<(&Rule, Shadow<'_>)> for ShadowView {
    fn from((rule, shadow): (&Rule, Shadow<'_>)) -> Self {
        let (why, by) = match shadow {
            Shadow::By(rules) => (ShadowedBy::Rules, rules.into_iter().map(|one| one.name.clone()).collect()),
            Shadow::Absent => (ShadowedBy::Interfaces, Vec::new()),
            Shadow::Unknown => (ShadowedBy::Unknown, Vec::new()),
        };
        Self { rule: rule.name.clone(), why, by }
    }
}

/// Why a rule did not take a packet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReasonView {
    /// The rule.
    pub rule: RuleName,
    /// What of it came nearest; its interfaces are those of the rule.
    #[serde(rename = "match")]
    pub matching: Match,
    /// The source that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Source>,
    /// The interfaces that the rule names.
    #[serde(default, rename = "interface", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// For programs.
    pub kind: ReasonKind,
    /// A phrase.
    pub text: String,
}

/// A program of somebody else.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForeignView {
    /// Program id.
    pub id: u32,
    /// Name that its loader gave it, empty when it could not be asked.
    pub name: String,
    /// Before or after ours.
    pub runs: Runs,
    /// What it could do about this packet, a phrase.
    pub could: String,
}

/// Answer to `GET /v1/shadowed`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shadows {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// As it was named when it was attached.
    pub target: Target,
    /// The netns cookie.
    pub cookie: u64,
    /// How many rules there are.
    pub rules: u64,
    /// Those that can never decide, and those of which that could not be told.
    pub shadowed: Vec<ShadowView>,
}

/// A rule that can never decide.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShadowView {
    /// The rule.
    pub rule: RuleName,
    /// For programs.
    pub why: ShadowedBy,
    /// The rules that take all that it would, by name.
    pub by: Vec<RuleName>,
}
