//! Whose rules a request is about: those of its sets, and no others. Pure.

use std::collections::BTreeSet;

use crate::config::SetName;

/// The sets that a request has whole: what is theirs and is not in it goes.
#[derive(Clone, Debug)]
pub(crate) struct SetScope {
    sets: BTreeSet<SetName>,
    /// All sets that are files there.
    directories: Vec<String>,
    /// All there are.
    is_all: bool,
}

impl SetScope {
    /// One set.
    pub(crate) fn of(set: SetName) -> Self {
        Self::these([set], Vec::new())
    }

    /// Several, and those in directories.
    pub(crate) fn these(sets: impl IntoIterator<Item = SetName>, directories: Vec<String>) -> Self {
        Self { sets: sets.into_iter().collect(), directories, is_all: false }
    }

    /// Whatever set there is.
    pub(crate) fn all(self) -> Self {
        Self { is_all: true, ..self }
    }

    /// Whether what a set has may go. What is no set's was found by labels, and is found anew by each request.
    pub(crate) fn owns(&self, set: Option<&SetName>) -> bool {
        let is_in = |set: &SetName| self.directories.iter().any(|directory| set.is_in(directory));
        self.is_all || set.is_none_or(|set| self.sets.contains(set) || is_in(set))
    }

    /// Whether it is what nobody has named: it says the same as others without having it.
    pub(crate) fn is_unnamed(&self) -> bool {
        self.sets.iter().all(SetName::is_unnamed)
    }
}

impl Default for SetScope {
    fn default() -> Self {
        Self::of(SetName::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_owns_its_sets_those_in_its_directories_and_what_is_nobodys() {
        let set = SetName::new;
        let scope = SetScope::these([set("/etc/a.toml"), set("team")], vec!["/etc/a.d".into()]);
        for (name, expected) in [
            ("/etc/a.toml", true),
            ("team", true),
            ("/etc/a.d/gone.toml", true),
            ("/etc/a.d/more/b.toml", false),
            ("/etc/b.toml", false),
            ("-", false),
        ] {
            assert_eq!(scope.owns(Some(&set(name))), expected, "{name}");
            assert!(scope.clone().all().owns(Some(&set(name))), "{name}");
        }
        assert!(scope.owns(None) && !scope.is_unnamed() && SetScope::default().is_unnamed());
    }
}
