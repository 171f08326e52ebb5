//! What a file wants, rule by rule, and why it cannot be.

use std::sync::Arc;

use crate::{
    config::{Rule, Target},
    control::{Code, Error, Refusal},
    intent::HostNetns,
    locate::ContainerId,
    reconcile::destinations::Missing,
};

/// Which rule of which namespace of the request.
pub(super) type At = (usize, usize);

/// A rule that shall be somewhere.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) at: At,
    pub(super) rule: Arc<Rule>,
    /// One, or more where several entries want the same in one namespace.
    pub(super) follows: Vec<Follower>,
    pub(super) host_netns: HostNetns,
    /// What a destination that cannot be found makes of one that follows nothing.
    pub(super) absent: Missing,
}

/// A target that a rule follows, or waits for.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    pub(super) target: Target,
    /// Which container that is now, where one is running.
    pub(super) id: Option<ContainerId>,
    /// It was found by a label.
    pub(super) discovered: bool,
    /// The rule stays where it comes to.
    pub(super) once: bool,
}

/// An entry whose rules wait, all or one: its target is not there, or they cannot be in force.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    pub(super) entry: usize,
    pub(super) target: Target,
    pub(super) id: Option<ContainerId>,
    pub(super) why: String,
    /// Whether it is there cannot be told: rules of it stay as they are until it can.
    pub(super) is_unknown: bool,
}

/// Why there is no plan.
#[derive(Debug)]
pub(super) enum Unplanned {
    /// What was looked at has been changed meanwhile.
    Outdated(Error),
    /// It cannot be.
    Refused(Error),
}

impl Unplanned {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Outdated(error) | Self::Refused(error) => error,
        }
    }
}

impl From<Error> for Unplanned {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Wanted {
    /// What a destination that cannot be found makes of it: where containers come and go, so do destinations.
    pub(super) fn missing(&self) -> Missing {
        if self.follows.is_empty() { self.absent } else { Missing::Down }
    }

    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.follows.iter().map(|follower| &follower.target)
    }

    /// What it follows, not what it only waits for.
    pub(super) fn followed(&self) -> Option<&Target> {
        self.follows.iter().find(|follower| !follower.once).map(|follower| &follower.target)
    }
}

pub(super) fn refusal(namespace: usize, rule: Option<usize>, error: Error) -> Refusal {
    Refusal { namespace, rule, message: error.message, hint: error.hint, is_flaw: false }
}

/// What is wrong with the file, whatever the namespace is like.
pub(super) fn flaw(namespace: usize, rule: Option<usize>, error: Error) -> Refusal {
    Refusal { is_flaw: true, ..refusal(namespace, rule, error) }
}

/// The error that says all of them, in the order of the file.
pub(super) fn refuse_if_any(mut problems: Vec<Refusal>) -> Result<(), Error> {
    problems.sort_by_key(|problem| (problem.namespace, problem.rule));
    let Some(first) = problems.first() else { return Ok(()) };
    let message = match problems.len() {
        1 => first.message.clone(),
        count => format!("{}, and {} more problems", first.message, count - 1),
    };
    let hint = first.hint.clone();
    Err(Error { hint, problems, ..Error::new(Code::Failed, message) })
}
