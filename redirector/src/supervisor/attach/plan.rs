//! Which rules a namespace will have.

use std::sync::Arc;

use redirector_ebpf::{CONSUMER_RELAY, MAX_CONSUMERS, MAX_RULES};

use super::How;
use crate::{
    config::{Rule, RuleSpec},
    control::{AttachResult, Code, Error},
    kernel::RuleSets,
    supervisor::{
        follow::Follow,
        namespace::Namespace,
        rules::{RuleState, RuleTable},
    },
};

/// What an attach comes to.
pub(super) struct Plan {
    pub(super) result: AttachResult,
    pub(super) rule: Rule,
    pub(super) index: u32,
    pub(super) consumer: u32,
}

/// Which rule comes of a specification, and what that means for those that are there.
pub(super) fn plan(existing: Option<&Namespace>, spec: RuleSpec, how: How) -> Result<Plan, Error> {
    let Some(netns) = existing else {
        let name = spec.name.clone().unwrap_or_else(|| crate::config::RuleName::numbered(1));
        let consumer = CONSUMER_RELAY + u32::from(how.is_lease());
        return Ok(Plan { result: AttachResult::Attached, rule: spec.named(name), index: 0, consumer });
    };
    let published = netns.published.load();
    let current = &published.current;
    let consumer = match how {
        How::DryRun | How::Rule(_) => CONSUMER_RELAY,
        How::Lease(_) => current.free_consumer().ok_or_else(|| {
            let message =
                format!("`{}`: {} programs hold listeners there already", netns.target, MAX_CONSUMERS - 1);
            Error::new(Code::Failed, message)
        })?,
    };
    let given = spec.name.clone();
    let rule = spec.named(given.clone().unwrap_or_else(|| current.free_name()));
    let same = match &given {
        Some(name) => current.get(name),
        None => current.rules().iter().find(|state| !state.is_lease() && state.rule.is_like(&rule)),
    };
    if let Some(state) = same {
        if state.is_lease() || how.is_lease() {
            let message = format!("rule `{}`: there is a rule of that name in `{}`", rule.name, netns.target);
            return Err(Error::new(Code::Failed, message).with_hint("detach it first, or take another name"));
        }
        let unchanged = state.rule.is_like(&rule);
        if state.is_files() && !unchanged && how != How::Rule(Follow::Still) {
            let message =
                format!("rule `{}`: in `{}` it is that of a configuration file", rule.name, netns.target);
            let hint = "change it in the file and `apply` that, or take another name";
            return Err(Error::new(Code::Failed, message).with_hint(hint));
        }
        let result = if unchanged { AttachResult::Unchanged } else { AttachResult::Changed };
        let rule = if unchanged { state.rule.clone() } else { rule };
        return Ok(Plan { result, rule, index: state.index, consumer });
    }
    let index = current.free_index().ok_or_else(|| {
        Error::new(Code::Failed, format!("rule `{}`: the namespace has {MAX_RULES} rules already", rule.name))
    })?;
    Ok(Plan { result: AttachResult::Attached, rule, index, consumer })
}

/// The rules that are there, with one more or one changed.
pub(super) fn with(
    existing: Option<&Namespace>,
    state: Arc<RuleState>,
    known: &RuleSets,
) -> Result<RuleTable, Error> {
    let mut rules = Vec::new();
    if let Some(netns) = existing {
        let current = Arc::clone(&netns.published.load().current);
        rules.extend(current.rules().iter().filter(|one| one.index != state.index).cloned());
    }
    let name = state.rule.name.clone();
    rules.push(state);
    RuleTable::new(rules, known).map_err(|error| Error::new(Code::Failed, format!("rule `{name}`: {error}")))
}
