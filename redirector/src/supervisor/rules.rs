//! The rules of one namespace as they are in force: the kernel's form and ours, from one compilation.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use redirector_ebpf::{
    Action, CONSUMER_RELAY, FLAG_DOWN, Flow, MAX_CONSUMERS, MAX_RULES, PROTOCOL_TCP, PROTOCOL_UDP,
    image::interfaces,
};

use super::sockets::Needs;
use crate::{
    config::{Destination, DestinationPort, Interface, OnUnavailable, Origin, Rule, RuleName},
    dial::{Route, Whereabouts},
    kernel::{RuleSet, RuleSets, flow},
    listener::{Client, OriginalDst},
    matcher::{CompileError, Placed, compile},
    netns::InterfaceIndex,
};

/// A rule in force.
#[derive(Debug)]
pub(super) struct RuleState {
    pub(super) rule: Rule,
    /// Into the rule counters of this namespace.
    pub(super) index: u32,
    /// Whose listeners get what it steers: the relay's, or those of a hand-off.
    pub(super) consumer: u32,
    /// Where its destination is.
    pub(super) whereabouts: Whereabouts,
    /// Of each that it names, where it is there.
    interfaces: Mutex<Vec<Option<InterfaceIndex>>>,
    down: AtomicBool,
    /// A file's, or else of `attach`; of no interest for a lease.
    of_file: AtomicBool,
    /// Dials that failed since one succeeded.
    failures: AtomicU32,
}

/// Dials in a row that fail before a rule is marked down.
const FAILURES_UNTIL_DOWN: u32 = 3;

impl RuleState {
    /// Down from the start where its destination is not known.
    pub(super) fn new(
        rule: Rule,
        origin: Origin,
        (index, consumer): (u32, u32),
        whereabouts: Whereabouts,
    ) -> Self {
        let (down, failures) = (AtomicBool::new(!whereabouts.is_known()), AtomicU32::new(0));
        let of_file = AtomicBool::new(origin == Origin::File);
        Self { rule, index, consumer, whereabouts, interfaces: Mutex::default(), down, of_file, failures }
    }

    /// Where its connections go.
    pub(super) fn route(&self) -> Route<'_> {
        let (to, connect_timeout) = (&self.rule.to, self.rule.connect_timeout.0);
        Route { to, connect_timeout, whereabouts: &self.whereabouts }
    }

    /// Learns which interfaces there are. Whether that is news.
    pub(super) fn set_interfaces(&self, present: &[(String, InterfaceIndex)]) -> bool {
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
    pub(super) fn missing_interfaces(&self) -> Vec<Interface> {
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

    /// One more failure. Whether it is the one that takes the rule down.
    pub(super) fn dial_failed(&self) -> bool {
        self.has_one_endpoint()
            && self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_UNTIL_DOWN
            && self.take_down()
    }

    /// Marks the rule down. Whether it was up.
    pub(super) fn take_down(&self) -> bool {
        !self.down.swap(true, Ordering::Relaxed)
    }

    pub(super) fn dial_succeeded(&self) {
        // Read first: every connection comes here, and writing would take the line from the other CPU.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// The destination answers again.
    pub(super) fn mark_up(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.down.store(false, Ordering::Relaxed);
    }

    /// Who made it.
    pub(super) fn origin(&self) -> Origin {
        if self.is_lease() {
            Origin::Lease
        } else if self.of_file.load(Ordering::Relaxed) {
            Origin::File
        } else {
            Origin::Api
        }
    }

    /// Whether it is a file's.
    pub(super) fn is_files(&self) -> bool {
        self.origin() == Origin::File
    }

    /// From now on it is a file's.
    pub(super) fn give_to_file(&self) {
        self.of_file.store(true, Ordering::Relaxed);
    }

    /// Whether it lasts as long as a program that holds its listeners.
    pub(super) fn is_lease(&self) -> bool {
        self.rule.to == Destination::Handoff
    }

    /// Whether what it steers is the relay's.
    fn needs_relay(&self) -> bool {
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
    pub(super) fn on_unavailable(&self) -> OnUnavailable {
        if self.rule.to == Destination::Drop { OnUnavailable::Reject } else { self.rule.on_unavailable }
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }
}

/// All rules of a namespace at one time.
#[derive(Debug)]
pub(super) struct RuleTable {
    /// What the kernel has.
    pub(super) rule_set: Arc<RuleSet>,
    /// By name.
    rules: Vec<Arc<RuleState>>,
    /// Where a rule is among them, by its index.
    places: HashMap<u32, usize>,
    /// Of each rule: the interfaces that it was compiled with.
    interfaces: Vec<Vec<u32>>,
}

impl RuleTable {
    /// Compiles them. Equal rules of other namespaces are there once.
    pub(super) fn new(mut rules: Vec<Arc<RuleState>>, known: &RuleSets) -> Result<Self, CompileError> {
        rules.sort_by(|one, other| one.rule.name.cmp(&other.rule.name));
        // Whether they are there or not: those that are not may come.
        let named: HashSet<_> = rules.iter().flat_map(|state| &state.rule.interfaces).collect();
        if named.len() > interfaces::MAX as usize {
            return Err(CompileError::TooManyInterfaces);
        }
        let interfaces: Vec<_> = rules.iter().map(|state| state.interface_indices()).collect();
        let image = compile(placed(&rules, &interfaces))?;
        let places = rules.iter().enumerate().map(|(place, state)| (state.index, place)).collect();
        Ok(Self { rule_set: known.with(image), rules, places, interfaces })
    }

    /// How many counters its rules need.
    pub(super) fn counters(&self) -> u32 {
        self.rules.iter().map(|state| state.index + 1).max().unwrap_or_default()
    }

    /// As they were compiled, marks apart: those are as they are now.
    pub(super) fn placed(&self) -> Vec<Placed<'_>> {
        placed(&self.rules, &self.interfaces).collect()
    }

    /// The rule with this index.
    pub(super) fn by_index(&self, index: u32) -> Option<&Arc<RuleState>> {
        self.places.get(&index).map(|place| &self.rules[*place])
    }

    pub(super) fn rules(&self) -> &[Arc<RuleState>] {
        &self.rules
    }

    /// Which sockets of ours they need in their namespace.
    pub(super) fn needs(&self) -> Needs {
        let can_drop = |protocol: &u32| self.rules.iter().any(|state| state.can_drop(*protocol));
        Needs {
            relay: self.rules.iter().any(|state| state.needs_relay()),
            black_hole: [PROTOCOL_TCP, PROTOCOL_UDP].into_iter().filter(can_drop).collect(),
        }
    }

    /// Whether interfaces are others now than those that it was compiled with.
    pub(super) fn is_outdated(&self) -> bool {
        let compiled = self.rules.iter().zip(&self.interfaces);
        compiled.into_iter().any(|(state, interfaces)| state.interface_indices() != *interfaces)
    }

    /// Whether it matters by which interface a connection came.
    pub(super) fn names_interfaces(&self) -> bool {
        self.rules.iter().any(|state| !state.rule.interfaces.is_empty())
    }

    pub(super) fn get(&self, name: &RuleName) -> Option<&Arc<RuleState>> {
        self.rules.iter().find(|state| state.rule.name == *name)
    }

    /// The lowest index that no rule here has.
    pub(super) fn free_index(&self) -> Option<u32> {
        self.free_indices().next()
    }

    /// The indices that no rule here has, from the lowest.
    pub(super) fn free_indices(&self) -> impl Iterator<Item = u32> + use<> {
        free_indices(self.rules.iter().map(|state| state.index).collect())
    }

    /// The lowest consumer that no rule here has, the relay's apart.
    pub(super) fn free_consumer(&self) -> Option<u32> {
        (CONSUMER_RELAY + 1..MAX_CONSUMERS as u32)
            .find(|consumer| self.rules.iter().all(|state| state.consumer != *consumer))
    }

    /// `rule-N` with the lowest N that is free.
    pub(super) fn free_name(&self) -> RuleName {
        let taken: HashSet<_> = self.rules.iter().map(|state| &state.rule.name).collect();
        let mut names = (1..).map(RuleName::numbered);
        names.find(|name| !taken.contains(name)).expect("there are few rules")
    }

    /// The rule whose connection this is: what the kernel program decided about its SYN, decided again.
    pub(super) fn decide(&self, flow: &Flow) -> Option<&Arc<RuleState>> {
        let decision = self.rule_set.image.decide(flow)?;
        if decision.action != Action::Steer as u32 || decision.consumer != CONSUMER_RELAY {
            return None;
        }
        self.by_index(decision.rule)
    }
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

/// Those that are not taken, as far as a namespace can have them.
fn free_indices(taken: HashSet<u32>) -> impl Iterator<Item = u32> {
    (0..MAX_RULES as u32).filter(move |index| !taken.contains(index))
}

/// What is in force, and what was before: a connection may have been steered just before the change.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) current: Arc<RuleTable>,
    pub(super) previous: Option<Arc<RuleTable>>,
}

impl Published {
    /// The rule that a connection belongs to. By which interface it came is asked only where that matters.
    pub(super) fn attribute(
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
mod tests {
    use super::*;

    #[test]
    fn an_index_is_the_lowest_that_is_free_and_there_is_an_end_to_them() {
        let all = || 0..MAX_RULES as u32;
        assert_eq!(free_indices([].into()).next(), Some(0));
        assert_eq!(free_indices([0, 1, 3].into()).take(2).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(
            free_indices(all().filter(|index| *index != 9_999).collect()).collect::<Vec<_>>(),
            [9_999]
        );
        assert_eq!(free_indices(all().collect()).next(), None);
    }
}
