//! What is asked for.

use crate::{
    config::{Listeners, RuleSpec, Target},
    control::Caller,
    intent::HostNetns,
    reconcile::destinations::Missing,
};

/// A rule to be put into force.
pub(crate) struct NewRule {
    pub(crate) target: Target,
    pub(crate) spec: RuleSpec,
    pub(crate) host_netns: HostNetns,
    pub(crate) whom: For,
    pub(crate) mode: Mode,
    /// What a destination that cannot be found makes of it.
    pub(crate) missing: Missing,
    /// Who asks for it.
    pub(crate) by: Caller,
}

/// For whom a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// The namespace where its target leads now, for as long as that lives.
    Namespace,
    /// What its target leads to, wherever that is.
    Target,
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
