//! What the programs of all namespaces have in common.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, Weak,
    atomic::{AtomicU32, Ordering},
};

use bytemuck::Pod;

use super::{
    Bypass, Ingress, InstanceError, RuleSet, RuleSets,
    bypass::BypassMap,
    loaded::{Identity, InForce},
    object,
    own_listeners::{OwnListenerMap, OwnListeners},
    parts::{Entries, Parts},
    probe,
    stock::{InstanceKind, Stock},
};
use crate::sys::{bpf, named};

/// One for each daemon.
#[derive(Debug)]
pub struct Shared {
    /// The name of its programs, by which another daemon knows them.
    name: &'static str,
    /// Rule sets that several namespaces may have.
    pub rule_sets: RuleSets,
    maps: Mutex<WeakMaps>,
    pub(super) stock: Stock,
    namespaces: AtomicU32,
    reads_ingress: OnceLock<bool>,
}

/// They are there while a namespace has any use for them.
#[derive(Debug, Default)]
struct WeakMaps {
    bypass: Weak<BypassMap>,
    own_listeners: Weak<OwnListenerMap>,
}

impl Default for Shared {
    fn default() -> Self {
        Self::named(object::PROGRAM)
    }
}

impl Shared {
    /// For programs that are known as something else: tests play the part of somebody else's.
    #[must_use]
    pub fn named(name: &'static str) -> Self {
        Self {
            name,
            rule_sets: RuleSets::default(),
            maps: Mutex::default(),
            stock: Stock::default(),
            namespaces: AtomicU32::default(),
            reads_ingress: OnceLock::new(),
        }
    }

    /// Has a stock of so many instances: see [`Self::in_stock`].
    #[must_use]
    pub fn with_stock(self, most: usize) -> Self {
        Self { stock: Stock::of(most), ..self }
    }

    /// How many instances are made ahead for namespaces that may come. That happens in the background, while something is
    /// steered.
    #[must_use]
    pub fn in_stock(&self) -> usize {
        self.stock.count()
    }

    /// Makes the parts of an instance with a rule set in force, or takes them from the stock.
    pub(super) fn parts(
        &self,
        rule_set: &RuleSet,
        kind: InstanceKind,
        ingress: Ingress,
    ) -> Result<Parts, InstanceError> {
        let in_stock = if ingress == Ingress::Read { self.stock.take(kind) } else { None };
        match in_stock {
            Some(mut parts) => {
                parts.fill(rule_set)?;
                Ok(parts)
            }
            None => Parts::make(
                self.identity(ingress),
                self.entries_of_one_more()?,
                InForce::new(rule_set)?,
                kind.counted,
            ),
        }
    }

    /// Makes the parts of an instance for rule sets of a kind. It has none of them in force.
    pub(super) fn blank(
        &self,
        InstanceKind { shape, counted }: InstanceKind,
    ) -> Result<Parts, InstanceError> {
        let in_force = InForce::blank(shape)?;
        Parts::make(self.identity(Ingress::Read), self.entries_of_one_more()?, in_force, counted)
    }

    /// What each of its programs is.
    pub(super) fn identity(&self, ingress: Ingress) -> Identity {
        let (reads_ingress, given_ingress) = match ingress {
            Ingress::Read => (self.reads_ingress(), 0),
            Ingress::Given(index) => (false, index),
        };
        Identity { name: self.name, reads_ingress, given_ingress }
    }

    /// What one more namespace has in the maps that all share.
    fn entries_of_one_more(&self) -> Result<Entries, InstanceError> {
        let netns = self.namespaces.fetch_add(1, Ordering::Relaxed);
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let bypass = match maps.bypass.upgrade() {
            Some(map) => map,
            None => Arc::new(BypassMap::new(made("BYPASS")?)),
        };
        let own_listeners = match maps.own_listeners.upgrade() {
            Some(map) => map,
            None => Arc::new(made("OWN_LISTENERS")?),
        };
        *maps = WeakMaps { bypass: Arc::downgrade(&bypass), own_listeners: Arc::downgrade(&own_listeners) };
        Ok(Entries {
            bypass: Bypass::new(bypass, netns),
            own_listeners: OwnListeners::new(own_listeners, netns),
        })
    }

    /// Whether the kernel tells a program by which interface a packet came (5.17).
    pub fn reads_ingress(&self) -> bool {
        if let Some(known) = self.reads_ingress.get() {
            return *known;
        }
        match probe::ingress_ifindex() {
            Ok(()) => *self.reads_ingress.get_or_init(|| true),
            Err(error) if error.source.raw_os_error() == Some(libc::EACCES) => {
                *self.reads_ingress.get_or_init(|| false)
            }
            // That says nothing about the kernel.
            Err(_) => false,
        }
    }
}

fn made<K: Pod, V: Pod>(name: &str) -> Result<bpf::Map<K, V>, InstanceError> {
    Ok(named("bpf BPF_OBJ_GET_INFO_BY_FD map", bpf::Map::new(object::make(name, None)?))?)
}
