//! The documents of the hand-off socket.

use std::{net::SocketAddr, num::NonZeroU16, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    config::{Interface, Listeners, Match, OnUnavailable, RuleName, Source, Span, Target},
    kernel::AttachedProgram,
    netns::Family,
};

/// "Give me listeners that get this traffic."
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// Which namespace.
    pub target: Target,
    /// One at least.
    #[serde(rename = "match")]
    pub matches: Vec<Match>,
    /// As [`RuleSpec::from`](crate::config::RuleSpec::from).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    /// As [`RuleSpec::except`](crate::config::RuleSpec::except).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Match>,
    /// As [`RuleSpec::interfaces`](crate::config::RuleSpec::interfaces).
    #[serde(default, rename = "interface", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// As [`RuleSpec::priority`](crate::config::RuleSpec::priority).
    #[serde(default, skip_serializing_if = "crate::config::is_default_priority")]
    pub priority: i32,
    /// Without it `rule-N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RuleName>,
    /// What clients get when the listeners are gone and the rule not yet.
    #[serde(default)]
    pub on_unavailable: OnUnavailable,
    /// As [`RuleSpec::coexist`](crate::config::RuleSpec::coexist).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coexist: bool,
    /// Without it the host's own namespace is refused.
    #[serde(default)]
    pub host_netns: bool,
    /// When the namespace dies, end the receiver: SIGTERM, and SIGKILL after this. Without it the receiver only
    /// finds its listeners shut down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kill_after: Option<Span>,
    /// No listeners come with the answer. The request carries an fd of
    /// [`crate::sys::seccomp::ask_about_listen`] instead, and where the receiver listens on this TCP port it gets a
    /// listener of the namespace in the place of its own socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_as: Option<NonZeroU16>,
    /// The user that the receiver will run as; without it the one that asks. When the namespace dies, `kill_after`
    /// ends other holders of its listeners only when they are this user's too: what it could end itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<u32>,
    /// Which listeners come with the answer. Not with `listen_as`, where the receiver's own sockets say that.
    #[serde(default, skip_serializing_if = "Listeners::is_default")]
    pub listeners: Listeners,
    /// The rule ends with the process that asks. Without it the rule goes on with the processes that hold the listeners then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub end_with_process: bool,
    /// When the process has ended: a listener from which nobody accepts for this long, although somebody waits, is unavailable.
    /// [`ACCEPT_WITHIN`] without it; `0s` is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_within: Option<Span>,
    /// With `listen_as`: a program that has not listened on that port after this long is told so. [`LISTEN_WITHIN`] without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_within: Option<Span>,
    /// The connection stays, and [`Notice`]s come on it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub notices: bool,
}

/// [`LeaseRequest::accept_within`] of who does not say: longer than a server pauses that is restarted or reads its configuration.
pub const ACCEPT_WITHIN: Span = Span(Duration::from_secs(10));

/// [`LeaseRequest::listen_within`] of who does not say.
pub const LISTEN_WITHIN: Span = Span(Duration::from_secs(5));

/// What a program is told that asked for `notices`, one in each message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// [`crate::control::SCHEMA`].
    pub schema: u32,
    /// What has happened.
    #[serde(flatten)]
    pub news: LeaseNews,
}

/// What has happened to a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum LeaseNews {
    /// Nobody but the receiver has the listeners. It comes first.
    Delivered,
    /// The program has not listened on the port of `listen_as`, but at these addresses.
    ListensElsewhere {
        /// Of `listen_as`.
        port: NonZeroU16,
        /// Where it does listen; maybe nowhere.
        addresses: Vec<SocketAddr>,
    },
    /// The process has ended, and the rule goes on with others that hold its listeners.
    Held {
        /// Those that can be seen, by their numbers in the daemon's PID namespace.
        pids: Vec<i32>,
    },
    /// The process has ended, and nobody holds its listeners: the rule goes. It comes last.
    Ended,
}

/// Listeners, which come with this message in this order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Leased {
    /// [`crate::control::SCHEMA`].
    pub schema: u32,
    /// The netns cookie.
    pub cookie: u64,
    /// The rule's name.
    pub rule: RuleName,
    /// IPv4, then IPv6 where the kernel has it. None with `listen_as`.
    pub listeners: Vec<LeasedListener>,
    /// What may surprise, a sentence each.
    pub warnings: Vec<String>,
    /// `sk_lookup` programs of others there.
    pub foreign_programs: Vec<AttachedProgram>,
    /// Connections that are open on matched addresses: they stay where they are.
    pub existing_connections: u64,
}

/// One listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeasedListener {
    /// Of the socket, `ipv4` or `ipv6`.
    pub family: Family,
    /// Where it is bound inside the namespace.
    pub address: SocketAddr,
    /// For `LISTEN_FDNAMES`: namespace, rule and family, or `dual`.
    pub name: String,
    /// An IPv6 socket that gets the traffic of both families, IPv4 addresses as `::ffff:a.b.c.d`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dual: bool,
}
