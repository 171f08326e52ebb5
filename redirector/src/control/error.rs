//! An error as the API tells it.

use serde::{Deserialize, Serialize};

use super::{Refusal, SCHEMA};
use crate::{
    locate::TargetError,
    text::{chain, escaped},
};

/// What kind of error, which decides the HTTP status and the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request is wrong: 400, exit 2.
    Usage,
    /// No such namespace or rule: 404, exit 3.
    NotFound,
    /// It could not be done: 500, exit 1.
    Failed,
}

/// Every error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The error.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorDetail {
    /// For programs.
    pub code: Code,
    /// For people: one line.
    pub message: String,
    /// A known mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Of a file that cannot be applied: each thing that is wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Refusal>,
}

/// An error with its cause in the text, once, and a hint where there is a known mend.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// For programs.
    pub code: Code,
    /// One line.
    pub message: String,
    /// A known mend.
    pub hint: Option<String>,
    /// Of a file: each thing that is wrong.
    pub problems: Vec<Refusal>,
}

impl Error {
    /// An error with a text, which stays one line whatever a request's words in it hold.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: escaped(&message.into()), hint: None, problems: Vec::new() }
    }

    /// An error with its whole chain in one line.
    #[must_use]
    pub fn chain(code: Code, error: &dyn std::error::Error) -> Self {
        Self::new(code, chain(error))
    }

    /// With a known mend.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<ErrorDetail> for Error {
    fn from(ErrorDetail { code, message, hint, problems }: ErrorDetail) -> Self {
        Self { code, message, hint, problems }
    }
}

impl From<Error> for ErrorBody {
    fn from(Error { code, message, hint, problems }: Error) -> Self {
        Self { schema: SCHEMA, error: ErrorDetail { code, message, hint, problems } }
    }
}

impl From<TargetError> for Error {
    fn from(error: TargetError) -> Self {
        let code = if error.is_not_found() { Code::NotFound } else { Code::Failed };
        let described = Self::chain(code, &error);
        match error.hint() {
            Some(hint) => described.with_hint(hint),
            None => described,
        }
    }
}
