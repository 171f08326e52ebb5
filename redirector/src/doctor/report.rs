//! What was found.

use serde::Serialize;

use crate::control::SCHEMA;

/// What a check means for steering.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something that is not needed is not there.
    Note,
    /// Steering works, and less well or not for everything.
    Warning,
    /// Steering cannot work.
    Fail,
}

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Which one. A name never changes its meaning.
    pub name: &'static str,
    /// What it means.
    pub status: Status,
    /// What was found, for people: one line.
    pub found: String,
    /// What to do about it; of every check that is not [`Status::Ok`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Check {
    /// As it should be.
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), hint: None }
    }

    /// Anything else.
    pub(super) fn not_ok(
        name: &'static str,
        status: Status,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { name, status, found: found.into(), hint: Some(hint.into()) }
    }
}

/// The document of `redirector doctor --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Whether steering can work: no check failed.
    pub works: bool,
    /// In the order in which they are of interest.
    pub checks: Vec<Check>,
}

impl Report {
    pub(super) fn of(checks: Vec<Check>) -> Self {
        let works = checks.iter().all(|check| check.status != Status::Fail);
        Self { schema: SCHEMA, works, checks }
    }
}
