//! A process that holds something, for as long as it is told to.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use crate::command::spawn;

/// A process that does nothing. It ends when this is dropped, and by itself when the tests end in any other way.
#[derive(Debug)]
pub struct Holder(Child);

impl Holder {
    /// Starts a command that becomes `cat` in the end, and waits until it is.
    #[track_caller]
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        child.stdin.as_mut().expect("a pipe").write_all(b"there?\n").expect("ask the process");
        let mut answer = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe"))
            .read_line(&mut answer)
            .expect("read its answer");
        assert_eq!(answer, "there?\n", "the process that holds something did not start");
        Self(child)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("wait for process {}: {error}", self.pid());
        }
    }
}
