//! What becomes other: in all, and in one namespace.

use std::{collections::HashSet, sync::Arc};

use super::{refused::Refused, standing::Standing};
use crate::{
    config::{RuleName, Target},
    control::{Code, Error},
    intent::Edit,
    kernel::{AttachedProgram, Shared},
    listener::Reaching,
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
    pub(crate) own: Option<Consumer>,
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
pub(crate) struct Consumer {
    pub(crate) consumer: u32,
    /// None where they come later.
    pub(crate) listeners: Reaching,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        intent::testing::{check, name, rule},
        reconcile::testing::{Scene, in_force},
    };

    /// Each line: what is in force, what is done, what will be, and what is gone.
    #[test]
    fn a_part_is_other_where_a_rule_comes_goes_or_is_another() {
        let cases = [
            ["7 a 1 api; 7 b 2 api", "", "- | "],
            ["7 a 1 api; 7 b 2 api", "without a", "b 2 #1 | a"],
            ["7 a 1 api; 7 b 2 api", "without a b", "nothing | a b"],
            ["7 a 1 api; 7 b 2 api", "without x", "- | "],
            ["7 a 1 api", "add b 2 1", "a 1 #0, b 2 #1+ | "],
            ["7 a 1 api", "change a 3 0", "a 3 #0+ | "],
            // The same words are another rule: it has other connections.
            ["7 a 1 api", "change a 1 0", "a 1 #0+ | "],
        ];
        check(&cases, |case| {
            let scene = Scene::of(case[0]);
            let standing = scene.standing(7).unwrap();
            let words: Vec<_> = case[1].split(' ').collect();
            let gone: Vec<_> = match words[0] {
                "without" | "change" => words[1..].iter().map(|named| named.parse().unwrap()).collect(),
                _ => Vec::new(),
            };
            let mut part = Part::without(standing, if words[0] == "change" { &gone[..1] } else { &gone });
            if let ["add" | "change", named, says, index] = words[..] {
                let index = (index.parse().unwrap(), 0);
                part.add(Arc::new(RuleState::new(
                    rule(named, says),
                    index,
                    crate::dial::Whereabouts::default(),
                )));
            }
            let gone: Vec<_> = part.gone().iter().map(ToString::to_string).collect();
            format!("{} | {}", in_force(Some(&part)), gone.join(" "))
        });
    }

    #[test]
    fn a_namespace_that_is_not_steered_has_nothing_before() {
        let mut part = Part::of("netns:n".parse().unwrap(), NetnsCookie(7), None);
        assert!(!part.is_other() && part.gone().is_empty());
        part.add(Arc::new(RuleState::new(rule("a", "80"), (0, 0), crate::dial::Whereabouts::default())));
        assert!(part.is_other() && !part.gone().contains(&name("a")));
    }

    #[test]
    fn the_first_of_what_cannot_be_compiled_is_told() {
        let error = |text: &str| Error::new(Code::Failed, text);
        assert_eq!(first(vec![(Some(1), error("one")), (None, error("two"))]).message, "one");
        assert_eq!(first(Vec::new()).message, "the rules cannot be compiled");
    }
}
