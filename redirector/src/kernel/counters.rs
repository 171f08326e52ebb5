//! Reading what the program counts.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use redirector_ebpf::{COUNTERS_OF_NETNS, Counters as Values, counters_of};

use super::{InstanceError, object};
use crate::sys::{SyscallError, bpf, named};

/// Counters of what no rule takes, and of so many rules.
#[derive(Debug)]
pub(super) struct Array {
    map: bpf::PerCpuArray<Values>,
    rules: u32,
}

impl Array {
    /// All at 0.
    pub(super) fn make(rules: u32) -> Result<Self, InstanceError> {
        let map = bpf::PerCpuArray::new(object::make("COUNTERS", Some(counters_of(rules)))?);
        Ok(Self { map: named("bpf BPF_OBJ_GET_INFO_BY_FD map", map)?, rules })
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// The per-CPU counters of one instance.
#[derive(Debug)]
pub struct Counters {
    /// Where the program counts, behind those where programs counted that had fewer.
    arrays: Mutex<Vec<Array>>,
}

impl Counters {
    /// For so many rules.
    pub(super) fn new(rules: u32) -> Result<Self, InstanceError> {
        Ok(Self { arrays: Mutex::new(vec![Array::make(rules)?]) })
    }

    fn with_arrays<T>(&self, call: impl FnOnce(&mut Vec<Array>) -> T) -> T {
        call(&mut self.arrays.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The program counts there from now on.
    pub(super) fn add(&self, array: Array) {
        self.with_arrays(|arrays| arrays.push(array));
    }

    /// With the map where the program counts rules.
    pub(super) fn with_last<T>(&self, call: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        self.with_arrays(|arrays| call(arrays.last().expect("made with one").as_fd()))
    }

    /// With each map.
    pub(super) fn with_all<T>(&self, call: impl Fn(BorrowedFd<'_>) -> T) -> Vec<T> {
        self.with_arrays(|arrays| arrays.iter().map(|array| call(array.as_fd())).collect())
    }

    /// For how many rules there are counters: indices below it.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.with_arrays(|arrays| arrays.last().map_or(0, |array| array.rules))
    }

    /// Decisions of the rule with this index.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn rule(&self, index: u32) -> Result<Values, SyscallError> {
        self.sum(counters_of(index))
    }

    /// What is of no rule: as `passed`, TCP packets for a new connection that no rule names; as `rejected`, those for a listener
    /// of a hand-off by its own address.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_LOOKUP_ELEM`.
    pub fn netns(&self) -> Result<Values, SyscallError> {
        self.sum(COUNTERS_OF_NETNS)
    }

    /// Begins a rule's counters anew. No published rule set may use the index.
    ///
    /// # Errors
    ///
    /// As bpf(2) `BPF_MAP_UPDATE_ELEM`.
    pub fn reset_rule(&self, index: u32) -> Result<(), SyscallError> {
        let key = counters_of(index);
        self.of(key, |map| named("bpf BPF_MAP_UPDATE_ELEM COUNTERS", map.clear(key))).map(drop)
    }

    fn sum(&self, key: u32) -> Result<Values, SyscallError> {
        let each = self.of(key, |map| {
            let each = named("bpf BPF_MAP_LOOKUP_ELEM COUNTERS", map.lookup(key))?;
            Ok(Values::sum(&each))
        })?;
        Ok(Values::sum(&each))
    }

    /// Those arrays that have this key.
    fn of<T>(
        &self,
        key: u32,
        call: impl FnMut(&bpf::PerCpuArray<Values>) -> Result<T, SyscallError>,
    ) -> Result<Vec<T>, SyscallError> {
        self.with_arrays(|arrays| {
            arrays.iter().filter(|array| key <= array.rules).map(|array| &array.map).map(call).collect()
        })
    }
}
