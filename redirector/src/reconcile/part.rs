//! What becomes other: in all, and in one namespace.

use std::{collections::HashSet, sync::Arc};

use super::{refused::Refused, standing::Standing};
use crate::{
    config::{RuleName, Target},
    control::{Code, Error},
    intent::Edit,
    kernel::{AttachedProgram, Shared},
    listener::Bound,
    matcher::CompileError,
    netns::NetnsCookie,
    steer::{Found, RuleState, RuleTable, blocking},
};

/// All that becomes other: in force, and of what is wanted. It is done whole, or not at all.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) parts: Vec<Part>,
    pub(crate) edit: Edit,
}

/// What becomes other in one namespace.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) target: Target,
    pub(crate) cookie: NetnsCookie,
    /// The rules that are in force there; none where it is not steered.
    before: Vec<Arc<RuleState>>,
    /// Which entry of a request is to blame where it cannot be, and can be left out.
    pub(crate) blamed: Option<usize>,
    /// `None` where nobody has looked, because nothing comes.
    pub(crate) found: Option<Arc<Found>>,
    /// `None` where it does not matter.
    pub(crate) foreign: Option<Vec<AttachedProgram>>,
    /// All of its rules; none where it is let go of.
    pub(crate) rules: Vec<Arc<RuleState>>,
    /// The same compiled; `None` where nothing is other for the kernel.
    pub(crate) table: Option<Arc<RuleTable>>,
    /// Those that are new, or new in what they do.
    pub(crate) new: Vec<Arc<RuleState>>,
    pub(crate) reset: Reset,
    /// Listeners of a consumer that is new there.
    pub(crate) own: Option<Own>,
}

/// Counters that begin anew.
#[derive(Debug, Default)]
pub(crate) struct Reset {
    /// Nobody has them.
    pub(crate) before: Vec<u32>,
    /// Only when no rule has them any more.
    pub(crate) after: Vec<u32>,
}

/// What a consumer gets.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) consumer: u32,
    /// None where they come later.
    pub(crate) listeners: Bound,
}

impl Part {
    /// A namespace where nothing is other yet, and no rule is left yet.
    pub(crate) fn of(target: Target, cookie: NetnsCookie, standing: Option<&Standing>) -> Self {
        Self {
            target,
            cookie,
            before: standing.map(|standing| standing.rules.clone()).unwrap_or_default(),
            blamed: None,
            found: None,
            foreign: None,
            rules: Vec::new(),
            table: None,
            new: Vec::new(),
            reset: Reset::default(),
            own: None,
        }
    }

    /// A namespace without some of its rules.
    pub(crate) fn without(standing: &Standing, gone: &[RuleName]) -> Self {
        let rest = standing.rules.iter().filter(|state| !gone.contains(&state.rule.name)).cloned();
        let part = Self::of(standing.target.clone(), standing.cookie, Some(standing));
        Self { rules: rest.collect(), ..part }
    }

    /// A rule that is new, in the place of another one where that has its index.
    pub(crate) fn add(&mut self, state: Arc<RuleState>) {
        self.rules.push(Arc::clone(&state));
        self.new.push(state);
    }

    /// Whether something is other for the kernel.
    pub(crate) fn is_other(&self) -> bool {
        let before: HashSet<_> = self.before.iter().map(Arc::as_ptr).collect();
        before.len() != self.rules.len()
            || self.rules.iter().any(|state| !before.contains(&Arc::as_ptr(state)))
    }

    /// The names of rules that were in force there and are gone.
    pub(crate) fn gone(&self) -> Vec<RuleName> {
        let names: HashSet<_> = self.rules.iter().map(|state| &state.rule.name).collect();
        let gone = self.before.iter().filter(|state| !names.contains(&state.rule.name));
        gone.map(|state| state.rule.name.clone()).collect()
    }
}

/// What cannot be compiled: which entry of a request is to blame, and why.
pub(crate) type Uncompiled = Vec<(Option<usize>, Error)>;

/// The first of them, of a plan that is about one thing.
pub(crate) fn first(uncompiled: Uncompiled) -> Error {
    let first = uncompiled.into_iter().next().map(|(_, error)| error);
    first.unwrap_or_else(|| Error::new(Code::Failed, "the rules cannot be compiled"))
}

impl Plan {
    /// Compiles what is other.
    ///
    /// # Errors
    ///
    /// What cannot be compiled, in the words of `refuse`.
    pub(crate) async fn compile(
        mut self,
        kernel: &Arc<Shared>,
        refuse: impl Fn(&Part, &CompileError) -> Refused + Send + 'static,
    ) -> Result<Self, Uncompiled> {
        let kernel = Arc::clone(kernel);
        let compiled = blocking(move || {
            let mut refused = Uncompiled::new();
            for part in self.parts.iter_mut().filter(|part| part.is_other() && !part.rules.is_empty()) {
                match RuleTable::new(part.rules.clone(), &kernel.rule_sets) {
                    Ok(table) => part.table = Some(Arc::new(table)),
                    Err(error) => refused.push((part.blamed, refuse(part, &error).into())),
                }
            }
            Ok((self, refused))
        });
        match compiled.await {
            Ok((plan, refused)) if refused.is_empty() => Ok(plan),
            Ok((_, refused)) => Err(refused),
            Err(error) => Err(vec![(None, error)]),
        }
    }
}
