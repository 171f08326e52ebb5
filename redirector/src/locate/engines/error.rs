//! Why an engine did not say what it was asked.

use std::{path::PathBuf, time::Duration};

use crate::{config::Engine, text::escaped};

/// Until an engine that does not answer is given up, for each request.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Why there is no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
#[error("{engine} at `{}`: {why}", socket.display())]
pub struct EngineError {
    /// Which engine.
    pub engine: Engine,
    /// Where it listens, or should.
    pub socket: PathBuf,
    /// What went wrong.
    pub why: NoAnswer,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody is there.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer within {} s", ANSWER.as_secs())]
    Late,
    /// It does not know this container.
    #[error("{0}")]
    NoSuchContainer(String),
    /// It does not want to.
    #[error("{0}")]
    Refused(String),
    /// What it says is not what an engine says.
    #[error("not an answer of a container engine: {0}")]
    Garbage(String),
}

impl EngineError {
    /// Whether the engine answered, and has no such container.
    #[must_use]
    pub fn is_no_such_container(&self) -> bool {
        matches!(self.why, NoAnswer::NoSuchContainer(_))
    }

    /// Whether the engine does not answer, whatever it is asked.
    #[must_use]
    pub fn is_of_engine(&self) -> bool {
        matches!(self.why, NoAnswer::Unreachable(_) | NoAnswer::Late)
    }

    /// A known mend.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self.why, NoAnswer::Unreachable(_)).then(|| {
            let engine = self.engine;
            format!("start {engine}, or say where it listens: `redirector run --{engine}-socket PATH`")
        })
    }
}

/// What an engine says may be long, and is not ours.
pub(super) fn one_line(text: &str) -> String {
    let start: String = text.trim().chars().take(300).collect();
    escaped(&start)
}
