//! What a file wants, rule by rule, and why it cannot be.

use std::sync::Arc;

use crate::{
    config::{Container, Rule},
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
}

/// A container that a rule follows.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    pub(super) container: Container,
    /// Which one that is now, where it is running.
    pub(super) id: Option<ContainerId>,
    /// It was found by a label.
    pub(super) discovered: bool,
}

/// An entry whose rules wait, all or one: its container is not running, or they cannot be in force.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    pub(super) entry: usize,
    pub(super) container: Container,
    pub(super) id: ContainerId,
    pub(super) why: String,
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
        if self.follows.is_empty() { Missing::Refused } else { Missing::Down }
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &Container> {
        self.follows.iter().map(|follower| &follower.container)
    }

    pub(super) fn container(&self) -> Option<&Container> {
        self.containers().next()
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
