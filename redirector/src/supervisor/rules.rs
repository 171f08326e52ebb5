//! The rules of one namespace as they are in force: the kernel's form and ours, from one compilation.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use redirector_ebpf::{Action, CONSUMER_RELAY, FLAG_DOWN, Flow, MAX_CONSUMERS, MAX_RULES};

use super::{elsewhere::Elsewhere, resolver::Resolver};
use crate::{
    config::{Destination, DestinationPort, OnUnavailable, Rule, RuleName},
    kernel::flow,
    listener::{Client, OriginalDst},
    matcher::{CompileError, Image, Placed, compile},
};

/// A rule in force.
#[derive(Debug)]
pub(super) struct RuleState {
    pub(super) rule: Rule,
    /// Into the rule counters of this namespace.
    pub(super) index: u32,
    /// Whose listeners get what it steers: the relay's, or those of a hand-off.
    pub(super) consumer: u32,
    /// For a destination with a host name.
    pub(super) resolver: Option<Resolver>,
    /// For a destination in another namespace.
    pub(super) elsewhere: Option<Elsewhere>,
    down: AtomicBool,
    /// Dials that failed since one succeeded.
    failures: AtomicU32,
}

/// What is known of where a rule's destination is.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    pub(super) resolver: Option<Resolver>,
    pub(super) elsewhere: Option<Elsewhere>,
}

/// Dials in a row that fail before a rule is marked down.
const FAILURES_UNTIL_DOWN: u32 = 3;

impl Whereabouts {
    /// Whether it can be said where the destination is.
    fn is_known(&self) -> bool {
        self.resolver.as_ref().is_none_or(|resolver| !resolver.addresses().is_empty())
            && self.elsewhere.as_ref().is_none_or(|elsewhere| !elsewhere.is_gone())
    }
}

impl RuleState {
    /// Down from the start where its destination is not known.
    pub(super) fn new(rule: Rule, index: u32, consumer: u32, whereabouts: Whereabouts) -> Self {
        let (down, failures) = (AtomicBool::new(!whereabouts.is_known()), AtomicU32::new(0));
        let Whereabouts { resolver, elsewhere } = whereabouts;
        Self { rule, index, consumer, resolver, elsewhere, down, failures }
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

    /// Whether it lasts as long as a program that holds its listeners.
    pub(super) fn is_lease(&self) -> bool {
        self.rule.to == Destination::Handoff
    }

    /// Whether it may leave clients without an answer.
    fn can_drop(&self) -> bool {
        self.rule.to == Destination::Drop || self.rule.on_unavailable == OnUnavailable::Drop
    }

    pub(super) fn is_down(&self) -> bool {
        self.down.load(Ordering::Relaxed)
    }
}

/// All rules of a namespace at one time.
#[derive(Debug)]
pub(super) struct RuleTable {
    /// What the kernel has.
    pub(super) image: Image,
    /// By name.
    rules: Vec<Arc<RuleState>>,
}

impl RuleTable {
    pub(super) fn new(mut rules: Vec<Arc<RuleState>>) -> Result<Self, CompileError> {
        rules.sort_by(|one, other| one.rule.name.cmp(&other.rule.name));
        let image = compile(rules.iter().map(|state| Placed {
            rule: &state.rule,
            index: state.index,
            consumer: state.consumer,
            flags: if state.is_down() { FLAG_DOWN } else { 0 },
        }))?;
        Ok(Self { image, rules })
    }

    pub(super) fn rules(&self) -> &[Arc<RuleState>] {
        &self.rules
    }

    /// Whether the namespace has to have a black hole.
    pub(super) fn can_drop(&self) -> bool {
        self.rules.iter().any(|state| state.can_drop())
    }

    pub(super) fn get(&self, name: &RuleName) -> Option<&Arc<RuleState>> {
        self.rules.iter().find(|state| state.rule.name == *name)
    }

    /// The lowest index that no rule here has.
    pub(super) fn free_index(&self) -> Option<u32> {
        (0..MAX_RULES as u32).find(|index| self.rules.iter().all(|state| state.index != *index))
    }

    /// The lowest consumer that no rule here has, the relay's apart.
    pub(super) fn free_consumer(&self) -> Option<u32> {
        (CONSUMER_RELAY + 1..MAX_CONSUMERS as u32)
            .find(|consumer| self.rules.iter().all(|state| state.consumer != *consumer))
    }

    /// `rule-N` with the lowest N that is free.
    pub(super) fn free_name(&self) -> RuleName {
        (1..).map(RuleName::numbered).find(|name| self.get(name).is_none()).expect("there are few rules")
    }

    /// The rule whose connection this is: what the kernel program decided about its SYN, decided again.
    pub(super) fn decide(&self, flow: &Flow) -> Option<&Arc<RuleState>> {
        let decision = self.image.decide(flow)?;
        if decision.action != Action::Steer as u32 || decision.consumer != CONSUMER_RELAY {
            return None;
        }
        self.rules.iter().find(|state| state.index == decision.rule)
    }
}

/// What is in force, and what was before: a connection may have been steered just before the change.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) current: Arc<RuleTable>,
    pub(super) previous: Option<Arc<RuleTable>>,
}

impl Published {
    /// The rule that a connection belongs to.
    pub(super) fn attribute(&self, client: Client, original: OriginalDst) -> Option<Arc<RuleState>> {
        let flow = flow(client.0, original.0);
        let before = || self.previous.as_ref().and_then(|table| table.decide(&flow));
        self.current.decide(&flow).or_else(before).map(Arc::clone)
    }
}
