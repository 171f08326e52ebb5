//! What becomes other: in all, and in one namespace.

use std::{collections::HashSet, sync::Arc};

use super::{refusal, refuse_if_any};
use crate::{
    config::{Container, RuleName, Target},
    control::{Change, Code, Error},
    kernel::{AttachedProgram, Shared},
    supervisor::{
        attach::Found,
        blocking,
        follow::Followed,
        namespace::Namespace,
        rules::{RuleState, RuleTable},
    },
};

/// All that becomes other.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) unchanged: u64,
    pub(super) warnings: Vec<String>,
    pub(super) parts: Vec<Part>,
    /// Rules that follow from now on, for the file.
    pub(super) followed: Vec<(Container, RuleName, Followed)>,
    /// Rules that do not follow any more, beside those of files.
    pub(super) unfollowed: HashSet<(Container, RuleName)>,
    /// Rules that follow for the file stay that are not among those.
    pub(super) only_adds: bool,
}

/// What becomes other in one namespace.
pub(super) struct Part {
    pub(super) target: Target,
    /// What is to blame where it cannot be: what has been found last, else the first that means it.
    pub(super) entry: Option<usize>,
    /// What can be left out there: what was found by a label, else an entry of the file, for a request that is lenient.
    pub(super) blamed: Option<usize>,
    /// `None` where it is not steered yet.
    pub(super) netns: Option<Arc<Namespace>>,
    /// `None` where the file does not want anything.
    pub(super) found: Option<Found>,
    /// `None` where it does not matter.
    pub(super) foreign: Option<Vec<AttachedProgram>>,
    /// All of its rules; none where it is let go of.
    pub(super) rules: Vec<Arc<RuleState>>,
    /// The same compiled; `None` where nothing is other for the kernel.
    pub(super) table: Option<Arc<RuleTable>>,
    pub(super) is_other: bool,
    /// Those that are new, or new in what they do.
    pub(super) new: Vec<Arc<RuleState>>,
    /// Those that stay, and are the file's from now on.
    pub(super) kept: Vec<Arc<RuleState>>,
    /// Counters that begin anew; some only when no rule has them any more.
    pub(super) reset: (Vec<u32>, Vec<u32>),
}

impl Part {
    /// Why it cannot be, as a problem of what was found there.
    pub(super) fn blame(&self, error: Error) -> Error {
        match self.blamed {
            Some(entry) => Error { problems: vec![refusal(entry, None, error.clone())], ..error },
            None => error,
        }
    }

    pub(super) fn keep(&mut self, state: Arc<RuleState>) {
        self.kept.push(Arc::clone(&state));
        self.rules.push(state);
    }
}

impl Plan {
    /// Compiles what is other.
    pub(super) async fn compile(mut self, kernel: &Arc<Shared>) -> Result<Self, Error> {
        let kernel = Arc::clone(kernel);
        blocking(move || {
            let mut refused = Vec::new();
            for part in self.parts.iter_mut().filter(|part| part.is_other && !part.rules.is_empty()) {
                match RuleTable::new(part.rules.clone(), &kernel.rule_sets) {
                    Ok(table) => part.table = Some(Arc::new(table)),
                    Err(error) => {
                        let message = format!("target `{}`: {error}", part.target);
                        let error = Error::new(Code::Failed, message);
                        // What is left of a namespace that the file does not mean has no place there.
                        refused.push(refusal(part.entry.ok_or_else(|| error.clone())?, None, error));
                    }
                }
            }
            refuse_if_any(refused)?;
            Ok(self)
        })
        .await
    }
}
