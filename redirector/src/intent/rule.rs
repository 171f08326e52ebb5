//! A rule that somebody wants.

use std::sync::Arc;

use super::Subject;
use crate::{
    config::{Origin, Rule, SetName, Target},
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
    /// Of a file that names its target: which one. What was found by a label is nobody's own.
    pub(crate) set: Option<SetName>,
    pub(crate) host_netns: HostNetns,
    /// Where it is, or was last. One that is for a namespace is there.
    pub(crate) at: Option<NetnsCookie>,
    /// Of one that is for a target, which most are not.
    pub(crate) follows: Option<Box<Follows>>,
}

/// What is known of the target that a rule follows, or waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Follows {
    /// Of a container that was seen: the one that had the name last.
    pub(crate) id: Option<ContainerId>,
    /// What keeps the rule waiting, when it is not where the target leads.
    pub(crate) why: String,
    /// The container was found by a label, and is what the rule follows, not its name.
    pub(crate) found: bool,
    /// The rule waits for the target, and belongs to the namespace from then on.
    pub(crate) once: bool,
}

impl Intended {
    /// A rule in one namespace.
    pub(crate) fn there(at: NetnsCookie, rule: Arc<Rule>, origin: Origin) -> Self {
        Self { rule, origin, set: None, host_netns: HostNetns::Refused, at: Some(at), follows: None }
    }

    /// Whether it is there only because its container was found by a label.
    pub(crate) fn is_found(&self) -> bool {
        self.follows.as_ref().is_some_and(|follows| follows.found)
    }

    /// The container that it was last, of a rule that follows one.
    pub(crate) fn id(&self) -> Option<&ContainerId> {
        self.follows.as_ref()?.id.as_ref()
    }

    /// Whether it only waits for its target.
    pub(crate) fn is_once(&self) -> bool {
        self.follows.as_ref().is_some_and(|follows| follows.once)
    }

    /// The rule of a target when it comes to the namespace where that leads, and for whom it is then. `id` is the container
    /// that is there.
    pub(crate) fn placed(
        &self,
        target: &Target,
        at: NetnsCookie,
        id: Option<&ContainerId>,
    ) -> (Subject, Self) {
        let follows = self.follows.as_ref().filter(|follows| !follows.once);
        let follows = follows.map(|now| {
            let id = id.or(now.id.as_ref()).cloned();
            Box::new(Follows { id, why: String::new(), ..(**now).clone() })
        });
        let subject = if follows.is_some() { Subject::from(target) } else { Subject::from(at) };
        (subject, Self { at: Some(at), follows, ..self.clone() })
    }
}
