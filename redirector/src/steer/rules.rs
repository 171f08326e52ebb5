//! The rules of one namespace as they are in force: the kernel's form and ours, from one compilation.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use redirector_ebpf::{
    Action, CONSUMER_RELAY, FLAG_DOWN, Flow, PROTOCOL_TCP, PROTOCOL_UDP, image::interfaces,
};

use super::tally::Tally;
use crate::{
    config::{Destination, DestinationPort, Interface, OnUnavailable, Rule, RuleName},
    dial::{Name, Route, Whereabouts},
    kernel::{RuleSet, RuleSets, flow},
    listener::{Client, OriginalDst},
    matcher::{CompileError, Placed, compile},
    netns::{Ends, InterfaceIndex},
};

/// A rule in force.
#[derive(Debug)]
pub(crate) struct RuleState {
    pub(crate) rule: Arc<Rule>,
    /// Into the rule counters of this namespace.
    pub(crate) index: u32,
    /// Whose listeners get what it steers: the relay's, or those of a hand-off.
    pub(crate) consumer: u32,
    /// Where its destination is.
    pub(crate) whereabouts: Whereabouts,
    /// Of each that it names, where it is there.
    interfaces: Mutex<Vec<Option<InterfaceIndex>>>,
    down: AtomicBool,
    /// Dials that failed since one succeeded.
    failures: AtomicU32,
    /// What has become of its connections.
    pub(crate) tally: Tally,
    /// Nobody wants its connections any more.
    closed: AtomicBool,
}

/// Dials in a row that fail before a rule is marked down.
const FAILURES_UNTIL_DOWN: u32 = 3;

impl RuleState {
    /// Down from the start where its destination is not known.
    pub(crate) fn new(rule: Arc<Rule>, (index, consumer): (u32, u32), whereabouts: Whereabouts) -> Self {
        let (down, failures, tally) = (AtomicBool::default(), AtomicU32::new(0), Tally::default());
        let closed = AtomicBool::new(false);
        let interfaces = Mutex::default();
        let state = Self { rule, index, consumer, whereabouts, interfaces, down, failures, tally, closed };
        if !state.whereabouts.is_known() {
            state.take_down(|| format!("`{}` is not found", state.rule.to));
        }
        state
    }

    /// Nobody wants its connections any more, those that are being made included.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Whether nobody does.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Where its connections go.
    pub(crate) fn route(&self) -> Route<'_> {
        let (to, connect_timeout) = (&self.rule.to, self.rule.connect_timeout.0);
        Route { to, connect_timeout, whereabouts: &self.whereabouts }
    }

    /// Learns which interfaces there are. Whether that is news.
    pub(crate) fn set_interfaces(&self, present: &[(String, InterfaceIndex)]) -> bool {
        let index =
            |name: &Interface| present.iter().find(|(one, _)| one == name.as_str()).map(|(_, index)| *index);
        let found: Vec<_> = self.rule.interfaces.iter().map(index).collect();
        let mut interfaces = self.interfaces();
        let changed = *interfaces != found;
        *interfaces = found;
        changed
    }

    fn interfaces(&self) -> MutexGuard<'_, Vec<Option<InterfaceIndex>>> {
        self.interfaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of its interfaces that are there.
    fn interface_indices(&self) -> Vec<u32> {
        self.interfaces().iter().flatten().map(|index| index.0).collect()
    }

    /// Those of its interfaces that are not there.
    pub(crate) fn missing_interfaces(&self) -> Vec<Interface> {
        let interfaces = self.interfaces();
        let named = self.rule.interfaces.iter().zip(&*interfaces);
        named.filter(|(_, index)| index.is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// Whether the rule has one destination whatever the client asked for. Only then do failed dials say
    /// something about the rule: else a client that tries closed ports would take it down for all others.
    fn has_one_endpoint(&self) -> bool {
        matches!(
            self.rule.to,
            Destination::Unix(_)
                | Destination::Host { port: DestinationPort::Fixed(_), .. }
                | Destination::Inside { port: DestinationPort::Fixed(_), .. }
        )
    }

    /// One more failure, for this reason. Whether it is the one that takes the rule down.
    pub(crate) fn dial_failed(&self, why: impl FnOnce() -> String) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        self.has_one_endpoint() && failures >= FAILURES_UNTIL_DOWN && self.take_down(why)
    }

    /// How many dials have failed since one succeeded.
    pub(crate) fn failed_in_a_row(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Marks the rule down, for this reason. Whether it was up.
    pub(crate) fn take_down(&self, why: impl FnOnce() -> String) -> bool {
        let was_up = !self.down.swap(true, Ordering::Relaxed);
        if was_up {
            self.tally.went_down(why());
        }
        was_up
    }

    pub(crate) fn dial_succeeded(&self) {
        // Read first: every connection comes here, and writing would take the line from the other CPU.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// The destination answers again.
    pub(crate) fn mark_up(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.tally.went_up();
        self.down.store(false, Ordering::Relaxed);
    }

    /// Whether it lasts as long as a program that holds its listeners.
    pub(crate) fn is_lease(&self) -> bool {
        self.rule.to == Destination::Handoff
    }

    /// Whether what it steers is the relay's.
    pub(crate) fn needs_relay(&self) -> bool {
        match self.rule.to {
            Destination::Original
            | Destination::Unix(_)
            | Destination::Host { .. }
            | Destination::Inside { .. } => true,
            Destination::Reject | Destination::Drop | Destination::Pass | Destination::Handoff => false,
        }
    }

    /// Whether it may leave packets of this protocol without an answer.
    fn can_drop(&self, protocol: u32) -> bool {
        (self.rule.to == Destination::Drop || self.rule.on_unavailable == OnUnavailable::Drop)
            && self.rule.matches.iter().any(|one| one.protocol.includes(protocol))
    }

    /// What decides while its socket cannot be had. For `drop` that is the next best, as it is compiled.
    pub(crate) fn on_unavailable(&self) -> OnUnavailable {
        if self.rule.to == Destination::Drop { OnUnavailable::Reject } else { self.rule.on_unavailable }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }
}

/// What a rule set needs of us in its namespace.
#[derive(Debug)]
pub(crate) struct Needs {
    /// Connections may be for the relay.
    pub(crate) relay: bool,
    /// Packets of these protocols may be left without an answer.
    pub(crate) black_hole: Vec<u32>,
}

/// All rules of a namespace at one time.
#[derive(Debug)]
pub(crate) struct RuleTable {
    /// What the kernel has.
    pub(crate) rule_set: Arc<RuleSet>,
    /// By name.
    rules: Vec<Arc<RuleState>>,
    /// Where a rule is among them, by its index: those of which there is none are nowhere.
    places: Box<[u32]>,
    /// Of each rule: the interfaces that it was compiled with.
    interfaces: Vec<Vec<u32>>,
    /// The host names that are their destinations.
    names: Box<[Arc<Name>]>,
    names_interfaces: bool,
}

impl RuleTable {
    /// Compiles them. Equal rules of other namespaces are there once.
    pub(crate) fn new(mut rules: Vec<Arc<RuleState>>, known: &RuleSets) -> Result<Self, CompileError> {
        rules.sort_by(|one, other| one.rule.name.cmp(&other.rule.name));
        // Whether they are there or not: those that are not may come.
        let named = rules.iter().flat_map(|state| &state.rule.interfaces);
        let named: HashSet<_> = named.map(Interface::as_str).collect();
        if named.len() > interfaces::MAX as usize {
            return Err(CompileError::TooManyInterfaces);
        }
        let interfaces: Vec<_> = rules.iter().map(|state| state.interface_indices()).collect();
        let image = compile(placed(&rules, &interfaces))?;
        let mut places = vec![NOWHERE; counters(&rules) as usize].into_boxed_slice();
        for (place, state) in (0..).zip(&rules) {
            places[state.index as usize] = place;
        }
        let names = rules.iter().filter_map(|state| state.whereabouts.name.clone()).collect();
        let names_interfaces = !named.is_empty();
        Ok(Self { rule_set: known.with(image), rules, places, interfaces, names, names_interfaces })
    }

    /// The host names that are destinations of its rules.
    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().map(Arc::as_ref)
    }

    /// How many counters its rules need.
    pub(crate) fn counters(&self) -> u32 {
        counters(&self.rules)
    }

    /// As they were compiled, marks apart: those are as they are now.
    pub(crate) fn placed(&self) -> Vec<Placed<'_>> {
        placed(&self.rules, &self.interfaces).collect()
    }

    /// The rule with this index.
    pub(crate) fn by_index(&self, index: u32) -> Option<&Arc<RuleState>> {
        let place = *self.places.get(index as usize)?;
        self.rules.get(place as usize)
    }

    pub(crate) fn rules(&self) -> &[Arc<RuleState>] {
        &self.rules
    }

    /// Which sockets of ours they need in their namespace.
    pub(crate) fn needs(&self) -> Needs {
        let can_drop = |protocol: &u32| self.rules.iter().any(|state| state.can_drop(*protocol));
        Needs {
            relay: self.rules.iter().any(|state| state.needs_relay()),
            black_hole: [PROTOCOL_TCP, PROTOCOL_UDP].into_iter().filter(can_drop).collect(),
        }
    }

    /// Whether interfaces are others now than those that it was compiled with.
    pub(crate) fn is_outdated(&self) -> bool {
        let compiled = self.rules.iter().zip(&self.interfaces);
        compiled.into_iter().any(|(state, interfaces)| state.interface_indices() != *interfaces)
    }

    /// The interfaces that its rules were compiled with.
    pub(crate) fn interfaces(&self) -> impl Iterator<Item = u32> {
        self.interfaces.iter().flatten().copied()
    }

    /// Whether it matters by which interface a connection came.
    pub(crate) fn names_interfaces(&self) -> bool {
        self.names_interfaces
    }

    pub(crate) fn get(&self, name: &RuleName) -> Option<&Arc<RuleState>> {
        let place = self.rules.binary_search_by(|state| state.rule.name.cmp(name)).ok()?;
        Some(&self.rules[place])
    }

    /// Whether it may be the relay's connection, by whatever interface it has come.
    fn may_relay(&self) -> impl Fn(&Ends) -> bool {
        let by_interface = self.names_interfaces();
        let takes = |state: &RuleState, ends: &Ends| {
            state.needs_relay() && state.rule.takes(ends.remote.ip(), ends.local)
        };
        move |ends| {
            if by_interface {
                self.rules.iter().any(|state| takes(state, ends))
            } else {
                self.decide(&flow(ends.remote, ends.local)).is_some()
            }
        }
    }

    /// Whether a connection leads to a consumer, by whatever interface it has come.
    pub(crate) fn leads_to(&self, consumer: u32, ends: Ends) -> bool {
        if self.names_interfaces() {
            let takes = |state: &RuleState| state.rule.takes(ends.remote.ip(), ends.local);
            return self.rules.iter().any(|state| state.consumer == consumer && takes(state));
        }
        let decision = self.rule_set.image.decide(&flow(ends.remote, ends.local));
        decision
            .is_some_and(|decision| decision.action == Action::Steer as u32 && decision.consumer == consumer)
    }

    /// The rule whose connection this is: what the kernel program decided about its SYN, decided again.
    pub(crate) fn decide(&self, flow: &Flow) -> Option<&Arc<RuleState>> {
        let decision = self.rule_set.image.decide(flow)?;
        if decision.action != Action::Steer as u32 || decision.consumer != CONSUMER_RELAY {
            return None;
        }
        self.by_index(decision.rule)
    }
}

/// Where a rule is that is not there.
const NOWHERE: u32 = u32::MAX;

fn counters(rules: &[Arc<RuleState>]) -> u32 {
    rules.iter().map(|state| state.index + 1).max().unwrap_or_default()
}

fn placed<'a>(rules: &'a [Arc<RuleState>], interfaces: &'a [Vec<u32>]) -> impl Iterator<Item = Placed<'a>> {
    rules.iter().zip(interfaces).map(|(state, interfaces)| Placed {
        rule: &state.rule,
        index: state.index,
        consumer: state.consumer,
        flags: if state.is_down() { FLAG_DOWN } else { 0 },
        interfaces,
    })
}

/// What is in force, and what was before: a connection may have been steered just before the change.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) current: Arc<RuleTable>,
    pub(crate) previous: Option<Arc<RuleTable>>,
    since: Instant,
}

/// How long a handshake can last that began before a change: a SYN is answered six times in 63 s
/// (`net.ipv4.tcp_synack_retries`). For so long what was in force before is known, with all that its rules hold.
const HANDSHAKE: Duration = Duration::from_secs(64);

impl Published {
    /// Tells whether a connection may be the relay's, by whatever interface it has come.
    pub(crate) fn may_relay(&self) -> impl Fn(&Ends) -> bool {
        let current = self.current.may_relay();
        let previous = self.previous.as_ref().map(|table| table.may_relay());
        move |ends| current(ends) || previous.as_ref().is_some_and(|previous| previous(ends))
    }

    /// From this moment on.
    pub(crate) fn new(current: Arc<RuleTable>, previous: Option<Arc<RuleTable>>) -> Self {
        Self { current, previous, since: Instant::now() }
    }

    /// The same without what was before, when nobody can need that any more.
    pub(crate) fn expired(&self, now: Instant) -> Option<Self> {
        let is_over = self.previous.is_some() && now.saturating_duration_since(self.since) > HANDSHAKE;
        is_over.then(|| Self { current: Arc::clone(&self.current), previous: None, since: self.since })
    }

    /// The rule that a connection belongs to. By which interface it came is asked only where that matters.
    pub(crate) fn attribute(
        &self,
        client: Client,
        original: OriginalDst,
        ingress: impl FnOnce() -> Option<u32>,
    ) -> Option<Arc<RuleState>> {
        let tables = [Some(&self.current), self.previous.as_ref()];
        let matters = tables.into_iter().flatten().any(|table| table.names_interfaces());
        let ingress_ifindex = if matters { ingress()? } else { 0 };
        let flow = Flow { ingress_ifindex, ..flow(client.0, original.0) };
        let before = || self.previous.as_ref().and_then(|table| table.decide(&flow));
        self.current.decide(&flow).or_else(before).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests;
