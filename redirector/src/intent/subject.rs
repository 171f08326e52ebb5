//! Whom a rule is for, and what a change is about.

use crate::{
    config::{Container, Target},
    netns::NetnsCookie,
};

/// What rules are wanted for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// One namespace, for as long as it lives.
    Netns(NetnsCookie),
    /// What a target leads to, whatever namespace that is, or will be.
    Target(Target),
    /// Nothing by itself: what files want as a whole. One that is applied waits for another, whatever they name.
    Files,
}

impl Subject {
    /// The target that a rule follows, or waits for.
    pub(crate) fn target(&self) -> Option<&Target> {
        match self {
            Self::Netns(_) | Self::Files => None,
            Self::Target(target) => Some(target),
        }
    }
}

impl From<&Target> for Subject {
    fn from(target: &Target) -> Self {
        Self::Target(target.clone())
    }
}

impl From<&Container> for Subject {
    fn from(container: &Container) -> Self {
        Self::Target(container.into())
    }
}

impl From<NetnsCookie> for Subject {
    fn from(cookie: NetnsCookie) -> Self {
        Self::Netns(cookie)
    }
}
