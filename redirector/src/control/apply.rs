//! The documents of `apply` and `export`.

use serde::{Deserialize, Serialize};

use crate::config::{
    RuleName, RuleSpec, SetName, Target,
    file::{DiscoverSpec, NamespaceSpec},
};

/// Body of `POST /v1/apply`: all that files want.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// As the file has them.
    #[serde(default)]
    pub namespaces: Vec<NamespaceSpec>,
    /// The same.
    #[serde(default)]
    pub discover: Vec<DiscoverSpec>,
    /// Of which set they are; what is no file's is of a set of its own, `-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<SetName>,
    /// Further sets. Problems count namespaces from those above on, through one set after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sets: Vec<FileSet>,
    /// Directories whose files are all here: sets of others there are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<String>,
    /// What any other set has goes as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
    /// Say what would be done, and do nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Take over the rules of `attach` as well.
    #[serde(default)]
    pub prune: bool,
    /// Where a target is not there, its rules wait for it; where a destination is not, its rules are down until it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wait: bool,
    /// The same; and put the rest into force where namespaces are there and cannot be made, and try those again by and by.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lenient: bool,
}

/// All that one set wants.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSet {
    /// The canonical path of a file, or a name.
    pub set: SetName,
    /// As the file has them.
    #[serde(default)]
    pub namespaces: Vec<NamespaceSpec>,
    /// As the file has them.
    #[serde(default)]
    pub discover: Vec<DiscoverSpec>,
}

/// Answer to `POST /v1/apply`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// Whether nothing was done.
    pub dry_run: bool,
    /// By namespace.
    pub changes: Vec<Change>,
    /// What else becomes of the file: which containers are looked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discover: Vec<DiscoverChange>,
    /// Rules that are as the file wants them.
    pub unchanged: u64,
    /// What may surprise, a sentence each.
    pub warnings: Vec<String>,
    /// Namespaces whose rules wait, because what they name is not there: one of these for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Refusal>,
    /// Namespaces that could not be made, where the request was lenient.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<Refusal>,
}

/// What becomes of one rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Change {
    /// As the file names it, or, when it does not, as it was attached.
    pub target: Target,
    /// The netns cookie; 0 while the rule waits for its target.
    pub cookie: u64,
    /// The rule's name.
    pub rule: RuleName,
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ChangeSide>,
    /// What is there from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ChangeSide>,
}

/// One `[[discover]]` that is new, or is no more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiscoverChange {
    /// What was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<DiscoverSpec>,
    /// What is there from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<DiscoverSpec>,
}

impl Applied {
    /// Whether nothing becomes other.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.discover.is_empty()
    }
}

/// A rule, before or after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeSide {
    /// What it says.
    pub rule: RuleSpec,
    /// The target that it goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<Target>,
}

/// Why a file cannot be applied: one problem.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// Which namespace of the request, from 0.
    pub namespace: usize,
    /// Which of its rules, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// For people: one line.
    pub message: String,
    /// A known mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// It is wrong with the file, whatever the namespace is like.
    #[serde(skip)]
    pub is_flaw: bool,
}

/// Answer to `GET /v1/export`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exported {
    /// [`super::SCHEMA`].
    pub schema: u32,
    /// Every rule but those of leases and of discovered containers, as a file has them.
    pub namespaces: Vec<NamespaceSpec>,
    /// Which containers are looked for.
    #[serde(default)]
    pub discover: Vec<DiscoverSpec>,
}
