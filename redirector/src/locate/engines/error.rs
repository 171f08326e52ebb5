//! Why an engine did not say what it was asked.

use std::path::PathBuf;

use super::ANSWER;
use crate::{config::Engine, text::escaped};

/// Why there is no answer, or a refusal.
#[derive(Debug, thiserror::Error)]
#[error("{engine} at `{}`: {failure}", socket.display())]
pub struct EngineError {
    /// Which engine.
    pub engine: Engine,
    /// Where it listens, or should.
    pub socket: PathBuf,
    /// What went wrong.
    pub failure: Failure,
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
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
        matches!(self.failure, Failure::NoSuchContainer(_))
    }

    /// Whether the engine does not answer, whatever it is asked.
    #[must_use]
    pub fn is_of_engine(&self) -> bool {
        matches!(self.failure, Failure::Unreachable(_) | Failure::Late)
    }

    /// A known mend.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        matches!(self.failure, Failure::Unreachable(_)).then(|| {
            let engine = self.engine;
            format!("start {engine}, or say where it listens: `redirector run --{engine}-socket PATH`")
        })
    }
}

impl Failure {
    /// Of a question that was about no container.
    pub(super) fn of_no_container(error: bollard::errors::Error) -> Self {
        match Self::from(error) {
            Self::NoSuchContainer(page) => Self::Garbage(page),
            failure => failure,
        }
    }
}

impl From<bollard::errors::Error> for Failure {
    fn from(error: bollard::errors::Error) -> Self {
        use bollard::errors::Error;
        match error {
            Error::SocketNotFoundError(_) => {
                Self::Unreachable("there is no such socket, or it cannot be seen".into())
            }
            Error::RequestTimeoutError => Self::Late,
            // Podman says 404 of several, too; Docker does not.
            Error::DockerResponseServerError { status_code: 404, message }
                if !message.starts_with("more than one result") =>
            {
                Self::NoSuchContainer(one_line(&message))
            }
            Error::DockerResponseServerError { status_code, message } if message.is_empty() => {
                Self::Garbage(format!("status {status_code} without a reason"))
            }
            Error::DockerResponseServerError { message, .. } => Self::Refused(one_line(&message)),
            Error::HyperLegacyError { err } if err.is_connect() => Self::Unreachable(last_cause(&err)),
            Error::IOError { err } => Self::Unreachable(err.to_string()),
            Error::HyperLegacyError { err } => Self::Garbage(last_cause(&err)),
            error => Self::Garbage(one_line(&error.to_string())),
        }
    }
}

/// What an engine says may be long, and is not ours.
fn one_line(text: &str) -> String {
    let start: String = text.trim().chars().take(300).collect();
    escaped(&start)
}

fn last_cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}
