//! A program that is run to its end, with what it said.

use std::{
    fmt,
    io::{ErrorKind, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::HANG;

/// How a program ended, and what it said. Printed, it has all that a failed assertion needs.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The command as a shell would take it, nearly.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// All of it.
    pub stdout: String,
    /// All of it.
    pub stderr: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, status, stdout, stderr } = self;
        write!(f, "\n  command: {command}\n  {status}\n  stdout: {stdout}\n  stderr: {stderr}")
    }
}

impl Outcome {
    /// The exit code, or -1 when a signal ended it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// It must have succeeded.
    #[track_caller]
    pub fn success(self) -> Self {
        assert!(self.status.success(), "must succeed{self}");
        self
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub fn must(command: &mut Command) -> Outcome {
    run(command).success()
}

/// Runs a command.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    run_with_stdin(command, "")
}

/// Runs a command that reads `stdin`.
#[track_caller]
pub fn run_with_stdin(command: &mut Command, stdin: &str) -> Outcome {
    let shown = shown(command);
    let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let pid = pid(&child);
    let mut pipe = child.stdin.take().expect("a pipe");
    // It may end without reading.
    drop(pipe.write_all(stdin.as_bytes()));
    drop(pipe);
    let (sender, receiver) = mpsc::channel();
    let waiter = thread::spawn(move || drop(sender.send(child.wait_with_output())));
    let Ok(output) = receiver.recv_timeout(HANG) else {
        if let Err(errno) = kill(pid, Signal::SIGKILL) {
            eprintln!("kill {pid}: {errno}");
        }
        panic!("`{shown}` did not end");
    };
    waiter.join().expect("the thread that waited for a command");
    let output = output.unwrap_or_else(|error| panic!("wait for `{shown}`: {error}"));
    Outcome {
        command: shown,
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Starts a command; says which one is missing.
#[track_caller]
pub fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| {
        let program = command.get_program().display();
        if error.kind() == ErrorKind::NotFound {
            panic!("`{program}` is missing: `cargo xtask prepare tests` installs what the tests need");
        }
        panic!("start `{}`: {error}", shown(command));
    })
}

/// The id of a child that has not been waited for.
#[must_use]
pub fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("process ids are positive"))
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
