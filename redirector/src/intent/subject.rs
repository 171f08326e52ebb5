//! Whom a rule is for, and what a change is about.

use crate::{config::Container, netns::NetnsCookie};

/// What rules are wanted for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Subject {
    /// One namespace, for as long as it lives.
    Netns(NetnsCookie),
    /// A container, in whatever namespace it is, or will be.
    Container(Container),
    /// Nothing by itself: what files want as a whole. One that is applied waits for another, whatever they name.
    Files,
}

impl Subject {
    /// The container that a rule follows.
    pub(crate) fn container(&self) -> Option<&Container> {
        match self {
            Self::Netns(_) | Self::Files => None,
            Self::Container(container) => Some(container),
        }
    }
}

impl From<&Container> for Subject {
    fn from(container: &Container) -> Self {
        Self::Container(container.clone())
    }
}

impl From<NetnsCookie> for Subject {
    fn from(cookie: NetnsCookie) -> Self {
        Self::Netns(cookie)
    }
}
