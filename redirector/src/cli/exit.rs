//! Exit codes and error lines: a contract.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use crate::{
    control::{ClientError, Code, Error},
    observe, text,
    text::chain,
};

const FAILED: u8 = 1;
pub(super) const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const UNREACHABLE: u8 = 4;
const DIFFERENT: u8 = 5;

/// Why a command did not do what it should.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A dry run that would do something: said on stdout already.
    pub(super) fn differences() -> Self {
        Self { code: DIFFERENT, message: String::new(), hint: None }
    }

    pub(super) fn usage(message: String) -> Self {
        Self { code: USAGE, message, hint: None }
    }

    /// One that no error of another layer tells.
    pub(super) fn text(message: String) -> Self {
        Self { code: FAILED, message, hint: None }
    }

    /// With a known mend.
    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn failed(error: &(dyn std::error::Error + 'static)) -> Self {
        Self { code: FAILED, message: chain(error), hint: None }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// For commands that run another one: their own failures must not look like its.
const EXEC_FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NO_SUCH_PROGRAM: u8 = 127;

impl Failure {
    /// A failure of `exec`, whatever kind it was.
    pub(super) fn of_exec(self) -> Self {
        Self { code: EXEC_FAILED, ..self }
    }

    /// exec(3) of CMD failed.
    pub(super) fn of_program(program: &str, error: &io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::NotFound { NO_SUCH_PROGRAM } else { NOT_EXECUTABLE };
        Self { code, message: format!("run `{program}`: {error}"), hint: None }
    }
}

impl From<Error> for Failure {
    fn from(Error { code, message, hint, problems: _ }: Error) -> Self {
        let code = match code {
            Code::Usage => USAGE,
            Code::NotFound => NOT_FOUND,
            Code::Failed => FAILED,
        };
        Self { code, message, hint }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::failed(&error)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { ref source, .. } => {
                let hint = match source.kind() {
                    io::ErrorKind::PermissionDenied => "the socket is for root and the daemon's user only",
                    _ => "start it with `redirector run`, or name its socket by `--socket`",
                };
                Self { code: UNREACHABLE, message: error.to_string(), hint: Some(hint.into()) }
            }
            ClientError::Broken { .. } => Self::failed(&error),
            ClientError::Refused(error) => error.into(),
        }
    }
}

/// The exit code of a finished command, and its error on stderr.
pub(super) fn finish(result: Result<(), Failure>) -> ExitCode {
    finish_by(say, result)
}

/// Says an error of a command on which others depend: the command ends although nobody reads its stderr.
pub(super) fn finish_in_time(result: Result<(), Failure>) -> ExitCode {
    finish_by(say_in_time, result)
}

fn finish_by(say: fn(&str, &str), result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message, hint }) => {
            if !message.is_empty() {
                say("error", &message);
            }
            if let Some(hint) = hint {
                say("hint", &hint);
            }
            code.into()
        }
    }
}

/// One line on stderr, whatever names and paths hold. That stderr is closed is no reason to fail.
pub(super) fn say(what: &str, text: &str) {
    // All at once: a full disk takes it or not.
    let line = format!("{what}: {}\n", text::escaped(text));
    drop(io::stderr().write_all(line.as_bytes()));
}

/// Says something while others wait for this process: when nobody has read stderr for a second, it is left out.
pub(super) fn say_in_time(what: &str, text: &str) {
    if observe::is_writable(io::stderr(), Duration::from_secs(1)) {
        say(what, text);
    }
}

/// A line on stderr as it is.
pub(super) fn say_plainly(line: &str) {
    drop(writeln!(io::stderr(), "{}", text::escaped(line)));
}
