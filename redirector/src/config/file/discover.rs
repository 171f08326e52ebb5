//! Which containers get rules because of a label.

use std::{os::unix::ffi::OsStrExt as _, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::namespace::named;
use crate::config::{Engine, Label, Rule, RuleSpec};

/// One `[[discover]]`: every container with a label has rules for as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoverSpec {
    /// Containers of Docker. This or the other, or both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker: Option<Selector>,
    /// Containers of Podman.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub podman: Option<Selector>,
    /// Rules that labels of a container's image say count as well. Whoever made the image has said them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image_labels: bool,
    /// Unix sockets that rules that labels say may lead to, by their absolute paths: the daemon goes there with its own rights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unix: Vec<PathBuf>,
    /// The rules of each of them; one without a name is `found-N`. Where there are none, its labels say its rules.
    #[serde(default, rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSpec>,
}

/// Which containers of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Those with this label.
    pub label: Label,
}

impl DiscoverSpec {
    /// Which containers of that engine, if any.
    #[must_use]
    pub fn of(&self, engine: Engine) -> Option<&Label> {
        let selector = match engine {
            Engine::Docker => &self.docker,
            Engine::Podman => &self.podman,
        };
        selector.as_ref().map(|selector| &selector.label)
    }

    /// Whether each container's own labels say its rules.
    #[must_use]
    pub fn reads_labels(&self) -> bool {
        self.rules.is_empty()
    }

    /// Its rules. Each has a name, as those of a file and of a checked request do.
    ///
    /// # Panics
    ///
    /// Of a rule without a name, or with flaws.
    pub fn rules(&self) -> impl Iterator<Item = Rule> {
        named(&self.rules)
    }

    /// All that is wrong with it, names of rules apart.
    pub fn flaws(&self) -> impl Iterator<Item = String> {
        let own = self.flaw().map(|(_, why)| why);
        let of_rules = self
            .rules
            .iter()
            .flat_map(|rule| rule.flaws().into_iter().map(|flaw| flaw.text).chain(rule.cannot_follow()));
        own.into_iter().chain(of_rules)
    }

    /// What is wrong with it, its rules apart, by key.
    pub(super) fn flaw(&self) -> Option<(&'static str, String)> {
        if self.docker.is_none() && self.podman.is_none() {
            let why = "a `[[discover]]` needs `docker` or `podman`, as `docker = { label = \"redirector.enable=true\" }`";
            return Some(("docker", why.into()));
        }
        if self.image_labels && !self.reads_labels() {
            let why = "`image_labels`: the rules are here, so no label says any";
            return Some(("image_labels", why.into()));
        }
        if !self.unix.is_empty() && !self.reads_labels() {
            return Some(("unix", "`unix`: the rules are here, so no label says any".into()));
        }
        let relative = self
            .unix
            .iter()
            .find(|path| !path.is_absolute() && !path.as_os_str().as_bytes().starts_with(b"@"));
        relative.map(|path| ("unix", format!("`unix`: `{}` is no absolute path", path.display())))
    }
}
