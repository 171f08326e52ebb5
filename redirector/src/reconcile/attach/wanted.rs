//! What is asked for.

use crate::{
    config::{Listeners, RuleSpec, Target},
    intent::HostNetns,
};

/// A rule to be put into force.
pub(crate) struct NewRule {
    pub(crate) target: Target,
    pub(crate) spec: RuleSpec,
    pub(crate) host_netns: HostNetns,
    pub(crate) whom: For,
    pub(crate) mode: Mode,
}

/// For whom a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// The namespace where its target leads now, for as long as that lives.
    Namespace,
    /// The container that its target names, wherever that is.
    Container,
    /// A program, which gets listeners of its own.
    Program(When),
}

/// When a program gets its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// With the answer.
    AtOnce(Listeners),
    /// When it listens.
    OnDemand,
}

/// Whether it is done, or only said what would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Real,
    Dry,
}
