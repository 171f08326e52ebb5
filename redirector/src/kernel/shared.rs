//! What the programs of all namespaces have in common.

use std::sync::{
    Arc, Mutex, OnceLock, PoisonError, Weak,
    atomic::{AtomicU32, Ordering},
};

use super::{Bypass, InstanceError, RuleSets, bypass::BypassMap, object, probe};
use crate::sys::{bpf, named};

/// One for each daemon.
#[derive(Debug)]
pub struct Shared {
    /// As what its programs are known, by which another daemon knows them.
    name: &'static str,
    /// Theirs.
    pub rule_sets: RuleSets,
    bypass: Mutex<Weak<BypassMap>>,
    namespaces: AtomicU32,
    reads_ingress: OnceLock<bool>,
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
            bypass: Mutex::default(),
            namespaces: AtomicU32::default(),
            reads_ingress: OnceLock::new(),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The bypass entries of one more namespace. The map is there while a namespace has any use for it.
    pub(super) fn bypass(&self) -> Result<Bypass, InstanceError> {
        let netns = self.namespaces.fetch_add(1, Ordering::Relaxed);
        let mut known = self.bypass.lock().unwrap_or_else(PoisonError::into_inner);
        let map = match known.upgrade() {
            Some(map) => map,
            None => {
                let map = bpf::Map::new(object::make("BYPASS", None)?);
                Arc::new(BypassMap::new(named("bpf BPF_OBJ_GET_INFO_BY_FD map", map)?))
            }
        };
        *known = Arc::downgrade(&map);
        Ok(Bypass::new(map, netns))
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
