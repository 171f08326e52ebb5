//! A rule that somebody wants.

use std::sync::Arc;

use crate::{
    config::{Origin, Rule},
    locate::ContainerId,
    netns::NetnsCookie,
};

/// Whether the host's own namespace may be meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostNetns {
    Refused,
    Allowed,
}

/// A rule that somebody wants for a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intended {
    pub(crate) rule: Arc<Rule>,
    pub(crate) origin: Origin,
    pub(crate) host_netns: HostNetns,
    /// Where it is, or was last. One that is for a namespace is there.
    pub(crate) at: Option<NetnsCookie>,
    /// Of one that is for a container, which most are not.
    pub(crate) follows: Option<Box<Follows>>,
}

/// What is known of the container that a rule follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Follows {
    /// The one that had the name last.
    pub(crate) id: ContainerId,
    /// What keeps the rule waiting, when it is not where the container is.
    pub(crate) why: String,
    /// It was found by a label, and is what the rule follows, not its name.
    pub(crate) found: bool,
}

impl Intended {
    /// A rule in one namespace.
    pub(crate) fn there(at: NetnsCookie, rule: Arc<Rule>, origin: Origin) -> Self {
        Self { rule, origin, host_netns: HostNetns::Refused, at: Some(at), follows: None }
    }

    /// Whether it is there only because its container was found by a label.
    pub(crate) fn is_found(&self) -> bool {
        self.follows.as_ref().is_some_and(|follows| follows.found)
    }

    /// The container that it was last, of a rule that follows.
    pub(crate) fn id(&self) -> Option<&ContainerId> {
        self.follows.as_ref().map(|follows| &follows.id)
    }
}
