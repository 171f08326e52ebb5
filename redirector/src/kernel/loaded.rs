//! A program in the kernel with a rule set in force: what is replaced as a whole.

use std::{
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use redirector_ebpf::constant;

use super::{Bypass, InstanceError, RuleSet, object};
use crate::sys::{SyscallError, bpf, named};

/// How the program learns by which interface a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// From the packet, where the kernel tells.
    Read,
    /// By this one, whatever the packet says: for test runs, to which the kernel gives no interface.
    Given(u32),
}

/// What is replaced as a whole.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) program: OwnedFd,
    /// The map of maps that the program knows.
    pub(super) rules: bpf::Map<u32, u32>,
    /// The rule set in it.
    pub(super) in_force: InForce,
    /// The rule sets that the program can decide by have it.
    pub(super) shape: Shape,
    /// How many rules it has counters for.
    pub(super) counted: u32,
    /// The same rule set in the map that other namespaces have, where the one in force is a copy.
    pub(super) twin: Option<Arc<OwnedFd>>,
}

impl Loaded {
    /// Puts the map of other namespaces in the place of a copy, which goes. Blocks as [`put`].
    pub(super) fn join_twin(&mut self) -> Result<(), SyscallError> {
        if let Some(twin) = self.twin.take() {
            put(&self.rules, &twin)?;
            self.in_force.map = twin;
        }
        Ok(())
    }
}

/// Puts a rule set into a map of maps. The kernel waits for an RCU grace period (`maybe_wait_bpf_programs`,
/// kernel/bpf/syscall.c).
pub(super) fn put(rules: &bpf::Map<u32, u32>, rule_set: &OwnedFd) -> Result<(), SyscallError> {
    let number = u32::try_from(rule_set.as_raw_fd()).expect("an open fd is not negative");
    named("bpf BPF_MAP_UPDATE_ELEM RULES", rules.update(&0, &number, bpf::Update::Any))
}

/// What the program is, whatever its rules are.
#[derive(Clone, Copy)]
pub(super) struct Identity {
    /// The name by which other daemons know it.
    pub(super) name: &'static str,
    /// Does it read the ingress interface of packets?
    pub(super) reads_ingress: bool,
    /// The ingress interface of all packets, 0 where none is given.
    pub(super) given_ingress: u32,
}

/// The counters of a program.
#[derive(Clone, Copy)]
pub(super) struct Counting<'a> {
    pub(super) map: BorrowedFd<'a>,
    /// How many rules they are for.
    pub(super) rules: u32,
}

/// Maps that a program has whatever its rules are.
pub(super) struct Maps<'a> {
    pub(super) listeners: BorrowedFd<'a>,
    pub(super) bypass: &'a Bypass,
    pub(super) own_listeners: BorrowedFd<'a>,
}

/// What a program is loaded for: the verifier leaves out what it excludes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// How long an image is.
    words: usize,
    /// What it looks at, or less: [`redirector_ebpf::image::looks`].
    looks: u32,
}

impl Shape {
    pub(super) fn of(rule_set: &RuleSet) -> Self {
        Self { words: rule_set.image.words().len(), looks: rule_set.image.looks() }
    }

    /// Bytes of an image.
    pub(super) fn size(self) -> usize {
        self.words * size_of::<u32>()
    }

    /// Whether a program for this shape can decide by a rule set of the other.
    pub(super) fn suffices_for(self, other: Self) -> bool {
        self.words == other.words && other.looks & !self.looks == 0
    }
}

/// A rule set, where the kernel has it.
#[derive(Clone, Debug)]
pub(super) struct InForce {
    pub(super) map: Arc<OwnedFd>,
    pub(super) shape: Shape,
}

impl InForce {
    pub(super) fn new(rule_set: &RuleSet) -> Result<Self, SyscallError> {
        Ok(Self { map: rule_set.map()?, shape: Shape::of(rule_set) })
    }

    /// An image of zeros: no program must run on it.
    pub(super) fn blank(shape: Shape) -> Result<Self, SyscallError> {
        let map = named("bpf BPF_MAP_CREATE rule set", bpf::array_of_bytes(shape.size(), "rules"))?;
        Ok(Self { map: Arc::new(map), shape })
    }
}

/// Loads a program with a rule set in force.
pub(super) fn load(
    Identity { name, reads_ingress, given_ingress }: Identity,
    Maps { listeners, bypass, own_listeners }: &Maps<'_>,
    counting: Counting<'_>,
    in_force: InForce,
) -> Result<Loaded, InstanceError> {
    let rules = bpf::array_of_maps(in_force.map.as_fd(), "RULES");
    let rules = named("bpf BPF_MAP_CREATE RULES", rules)?;
    put(&rules, &in_force.map)?;
    let shape = in_force.shape;
    let words = u32::try_from(shape.words).expect("at most MOST");
    let program = object::load(
        name,
        &[
            (constant::READS_INGRESS, reads_ingress.into()),
            (constant::GIVEN_INGRESS, given_ingress),
            (constant::NETNS, bypass.netns()),
            (constant::WORDS, words),
            (constant::LOOKS, shape.looks),
        ],
        &[
            ("RULES", rules.as_fd()),
            ("LISTENERS", *listeners),
            ("BYPASS", bypass.map()),
            ("OWN_LISTENERS", *own_listeners),
            ("COUNTERS", counting.map),
        ],
    )?;
    Ok(Loaded { program, rules, in_force, shape, counted: counting.rules, twin: None })
}
