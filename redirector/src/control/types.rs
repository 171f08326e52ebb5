//! The documents of the API, which `--json` prints as they are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Availability, CloseResult, DetachResult, NamespaceState, RulesIn, health::HealthView};
use crate::{
    config::{
        Destination, Engine, Interface, Label, Match, OnUnavailable, Origin, RuleName, RuleSpec, SetName,
        Source, Span, Target,
    },
    kernel::AttachedProgram,
    netns::Family,
};

use super::ChangeSide;

/// The version of every document. Fields are only added.
pub const SCHEMA: u32 = 1;

/// Body of `POST /v1/attach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// Which namespace.
    pub target: Target,
    /// What to steer where.
    pub rule: RuleSpec,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Without it the host's own namespace is refused.
    #[serde(default)]
    pub host_netns: bool,
    /// The rule goes where the target leads, to another container of that name for example, and waits while it leads nowhere.
    #[serde(default)]
    pub follow: bool,
    /// The rule waits where its target is not there yet, and is down where its destination is not.
    #[serde(default)]
    pub wait: bool,
}

/// What an attach did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachResult {
    /// The rule is new.
    Attached,
    /// A rule of this name was there and said something else.
    Changed,
    /// It was there like this.
    Unchanged,
    /// It will be put into force when its target is there.
    Waiting,
}

/// Answer to `POST /v1/attach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was done, or would be.
    pub result: AttachResult,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// As the user named it.
    pub target: Target,
    /// The netns cookie; 0 while the rule waits.
    pub cookie: u64,
    /// The rule's name.
    pub rule: RuleName,
    /// What a rule of this name said, where there was one that said something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ChangeSide>,
    /// What it says from now on, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ChangeSide>,
    /// What may surprise, a sentence each.
    pub warnings: Vec<String>,
    /// `sk_lookup` programs of others in that namespace, in the order in which they run.
    pub foreign_programs: Vec<AttachedProgram>,
    /// Connections that are open on matched addresses: they stay where they are.
    pub existing_connections: u64,
}

/// Body of `POST /v1/detach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetachRequest {
    /// Which namespace.
    pub target: Target,
    /// One rule; without it every rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
    /// Reset the connections of these rules, too.
    #[serde(default)]
    pub close: bool,
}

/// Body of `POST /v1/close`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloseRequest {
    /// Which namespace: one that is steered, or was.
    pub target: Target,
    /// Connections of these clients only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Source>,
    /// Connections of this rule only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleName>,
}

/// Answer to `POST /v1/close`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Closed {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was done.
    pub result: CloseResult,
    /// As the user named it.
    pub target: Target,
    /// The netns cookie.
    pub cookie: u64,
    /// Relayed connections that are reset.
    pub connections: u64,
}

/// Answer to `POST /v1/detach`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Detached {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was done.
    pub result: DetachResult,
    /// As it was named when it was attached.
    pub target: Target,
    /// The netns cookie; 0 where rules waited for a container.
    pub cookie: u64,
    /// The rules that are gone.
    pub rules: Vec<RuleName>,
    /// Whether other rules still steer the namespace.
    pub steered: bool,
    /// Relayed connections that are reset, as asked for.
    #[serde(default)]
    pub closed: u64,
    /// Relayed connections that go on to their end.
    pub connections: u64,
}

/// Answer to `GET /v1/namespaces`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listing {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Those that are steered, by target.
    pub namespaces: Vec<NamespaceView>,
    /// Rules that are not in force: mostly because their target is not there. Those of the daemon's own file also because their
    /// namespace could not be made.
    #[serde(default)]
    pub waiting: Vec<WaitingView>,
    /// Which containers have rules because of a label; not there where one target was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discover: Vec<DiscoverView>,
    /// Those that are not steered any more, with connections that go on to their end.
    pub draining: Vec<DrainingView>,
    /// What concerns the daemon as a whole.
    #[serde(default)]
    pub daemon: DaemonCounts,
}

/// Counters of the daemon as a whole, since its start.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct DaemonCounts {
    /// Log lines that were not written: nobody read them, or they could not be written.
    #[serde(default)]
    pub log_lines_lost: u64,
}

/// One steered namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceView {
    /// As it was named when it was attached.
    pub target: Target,
    /// The netns cookie.
    pub cookie: u64,
    /// Inode of its nsfs file.
    pub inode: u64,
    /// The id of the container that it was found by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Is it steered? Never `file`.
    pub state: NamespaceState,
    /// The relay's listeners inside.
    pub listeners: Vec<ListenerView>,
    /// Our program there.
    pub program: ProgramView,
    /// Programs of others there, as found at the last attach.
    pub foreign_programs: Vec<AttachedProgram>,
    /// By name.
    pub rules: Vec<RuleView>,
    /// Decisions that no rule took.
    pub counters: NetnsCounts,
    /// What became of accepted connections.
    pub connections: ConnectionCounts,
    /// What was found amiss and mended.
    pub drift: Drift,
}

/// A target whose rules wait for it, or a namespace of the daemon's own file that could not be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WaitingView {
    /// As it was named when it was attached.
    pub target: Target,
    /// The id of the container that had that name last; empty where none was seen, or the namespace could not be made.
    pub container: String,
    /// What keeps them waiting, a sentence.
    pub why: String,
    /// Of rules that a file names: the file's path, or the name that its set was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetName>,
    /// As they will be put into force.
    pub rules: Vec<RuleSpec>,
}

/// What has come of one `[[discover]]` at one engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiscoverView {
    /// `docker` or `podman`.
    pub engine: Engine,
    /// The label that is looked for.
    pub label: Label,
    /// Where their rules stand.
    pub rules: RulesIn,
    /// Running containers that have the label, as far as the engine has told.
    pub containers: u64,
    /// Those of them that have no rules for it, or not all.
    pub refused: Vec<RefusedView>,
    /// Why the engine tells nothing, a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A container that has no rules, or not all, although it has the label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedView {
    /// By its name.
    pub target: Target,
    /// Its id.
    pub container: String,
    /// What is wrong, a sentence each.
    pub why: Vec<String>,
}

/// One listener.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListenerView {
    /// `ipv4` or `ipv6`.
    pub family: Family,
    /// Where it is bound inside the namespace.
    pub address: String,
    /// It listens, and the SOCKMAP slot has it.
    pub healthy: bool,
    /// Of a lease: why it is not healthy, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Kernel ids.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgramView {
    /// Program id.
    pub id: u32,
    /// Link id.
    pub link: u32,
}

/// One rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleView {
    /// Unique in the namespace.
    pub name: RuleName,
    /// Who made it.
    pub origin: Origin,
    /// Of one that a file names: the file's path, or the name that its set was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetName>,
    /// Its matches.
    #[serde(rename = "match")]
    pub matches: Vec<Match>,
    /// The clients that it takes; all when there are none here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    /// What it does not take.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Match>,
    /// The interfaces by which what it takes comes; all when there are none here.
    #[serde(default, rename = "interface", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Those of them that are not there: nothing comes by them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces_missing: Vec<Interface>,
    /// Higher ones decide first.
    #[serde(default)]
    pub priority: i32,
    /// Its destination.
    pub to: Vec<Destination>,
    /// What a client sees while it is unavailable.
    pub on_unavailable: OnUnavailable,
    /// Until a dial is given up.
    pub connect_timeout: Span,
    /// Until a silent connection is reset.
    pub idle_timeout: Span,
    /// It may be in force beside another redirector.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coexist: bool,
    /// Does its destination answer?
    pub state: Availability,
    /// How it fares.
    #[serde(flatten)]
    pub health: HealthView,
    /// Nothing was decided by it since it was attached.
    #[serde(default)]
    pub took_nothing: bool,
    /// From the kernel.
    pub counters: RuleCounts,
    /// The target that it goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Target>,
    /// The container was found by a label: the rule ends with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discovered: bool,
    /// Of a lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
}

/// Who holds a rule's listeners.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeaseView {
    /// In the daemon's PID namespace; `None` when it cannot be seen from there.
    pub pid: Option<i32>,
    /// The listeners; healthy while somebody holds them and the slots have them.
    pub listeners: Vec<ListenerView>,
    /// With `listen_as`: families that its program does not listen for. `on_unavailable` decides about their packets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without: Vec<Family>,
    /// There when `pid` has ended: the processes with which the rule goes on, as the last look has shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holders: Option<Vec<i32>>,
}

/// Decisions of one rule: look-ups of the kernel, not connections. The program decides at least once per connection; once more for
/// each SYN that is sent again and finds no pending handshake, and for each look-up that a packet filter makes by itself (`socket`,
/// TPROXY). What a filter drops before it is not counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleCounts {
    /// Given to the listener; whether that has made a connection of it is in [`HealthView::accepted`].
    pub steered: u64,
    /// Left alone: the rule says `pass`.
    pub passed: u64,
    /// Refused: the rule says `reject`.
    pub rejected: u64,
    /// Left without an answer: the rule says `drop`.
    #[serde(default)]
    pub dropped: u64,
    /// The relay's own onward connections, left alone.
    pub bypassed: u64,
    /// The listener could not be had; `on_unavailable` decided.
    pub unavailable: u64,
    /// The same by reason: errno of the assignment, or `down`. Without those that never came.
    pub unavailable_reasons: BTreeMap<String, u64>,
}

/// Decisions that no rule took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetnsCounts {
    /// TCP packets for a new connection that no rule names.
    pub unmatched: u64,
    /// TCP packets for a listener of a hand-off, by the address that it is bound to inside the namespace: refused.
    #[serde(default)]
    pub own_listener: u64,
}

/// What became of accepted connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ConnectionCounts {
    /// Accepted and not yet ended.
    pub active: u64,
    /// Both sides have ended, and one has not acknowledged all yet. How it ends is counted when it has, or is given up.
    pub lingering: u64,
    /// Accepted.
    pub accepted: u64,
    /// Reached their destination.
    pub relayed: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes from destinations.
    pub bytes_out: u64,
    /// Bytes that clients' TCP knows to have arrived, and that no destination's TCP had acknowledged when the
    /// connection was reset, or failed.
    #[serde(default)]
    pub bytes_lost: u64,
    /// Bytes that destinations' TCP knows to have arrived, and that no client's TCP had acknowledged then.
    #[serde(default)]
    pub bytes_lost_to_clients: u64,
    /// accept(2) found no fd or no memory.
    pub accept_exhausted: u64,
    /// Did not reach their destination, by reason.
    pub failed: BTreeMap<String, u64>,
    /// Reached it and ended, by how.
    pub ended: BTreeMap<String, u64>,
}

/// What was found amiss and mended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drift {
    /// Listeners that something had killed.
    pub listeners_revived: u64,
    /// SOCKMAP slots that held something else than our listener.
    pub slots_restored: u64,
    /// Links that somebody had detached.
    pub links_restored: u64,
}

/// A namespace that is not steered any more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DrainingView {
    /// As it was named when it was attached.
    pub target: Target,
    /// The netns cookie.
    pub cookie: u64,
    /// Relayed connections that go on.
    pub connections: u64,
}
