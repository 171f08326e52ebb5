//! What one namespace shall have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Rule, RuleSpec, Target};

/// One `[[namespace]]`. Several that mean the same namespace are one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamespaceSpec {
    /// Which.
    pub target: Target,
    /// Its rules go with the target: to a container that is restarted, or to whatever gets the container's or the namespace's
    /// name, or the path. They wait while nothing has it. The default for containers, and for nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follow: Option<bool>,
    /// Without it the host's own namespace is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_netns: bool,
    /// One at least.
    #[serde(default, rename = "rule")]
    #[schemars(required, length(min = 1))]
    pub rules: Vec<RuleSpec>,
}

impl NamespaceSpec {
    /// Whether its rules follow the target.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.follow.unwrap_or(matches!(self.target, Target::Container(_)))
    }

    /// Its rules. Each has a name, as those of a file and of a checked request do.
    ///
    /// # Panics
    ///
    /// Of a rule without a name, or with flaws.
    pub fn rules(&self) -> impl Iterator<Item = Rule> {
        named(&self.rules)
    }

    /// What is wrong with it, the names of rules apart: of which rule, and why.
    #[must_use]
    pub fn flaws(&self) -> Vec<(Option<usize>, String)> {
        let own = self.flaw().map(|(_, why)| (None, why));
        let empty = self.rules.is_empty().then(|| (None, format!("target `{}`: needs a rule", self.target)));
        let of_rules = self.rules.iter().enumerate().flat_map(|(index, rule)| {
            let flaws = rule.flaws().into_iter().map(|flaw| flaw.text);
            flaws.chain(self.cannot_follow(rule)).map(move |why| (Some(index), why))
        });
        own.into_iter().chain(empty).chain(of_rules).collect()
    }

    /// What is wrong with the target, or with what it is to be, by key.
    pub(super) fn flaw(&self) -> Option<(&'static str, String)> {
        match &self.target {
            Target::Caller => Some((
                "target",
                "target `self`: whose namespace that is a file cannot say; name it by `netns:NAME` or `path:/ABS`".into(),
            )),
            target if self.follow == Some(true) && !target.can_be_followed() => Some((
                "follow",
                format!("target `{target}`: only a container, `netns:NAME` or `path:/ABS` can be followed, and no process"),
            )),
            _ => None,
        }
    }

    /// Why a rule cannot follow, if it cannot.
    #[must_use]
    pub fn cannot_follow(&self, rule: &RuleSpec) -> Option<String> {
        rule.cannot_follow().filter(|_| self.follows())
    }
}

/// Rules that each have a name, and no flaw.
pub(super) fn named(rules: &[RuleSpec]) -> impl Iterator<Item = Rule> {
    rules.iter().map(|rule| rule.clone().named(rule.name.clone().expect("it has a name")))
}
