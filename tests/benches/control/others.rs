//! Processes that have nothing to do with the daemon, and that it meets when it looks for who keeps a namespace.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

/// Idle processes. They end when this is dropped, or the bench ends in any other way: all of them read from its pipe.
#[derive(Debug)]
pub(crate) struct Others(Child);

/// A shell's copies of itself: each costs a fork, and no more.
const FORK: &str =
    "exec 3<&0; i=0; while [ $i -lt $0 ]; do (read x <&3) & i=$((i + 1)); done; echo there; wait";

impl Others {
    /// Starts so many, and waits until they are there.
    pub(crate) fn start(count: usize) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", FORK, &count.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().expect("start a shell");
        let mut said = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut said).expect("read from a shell");
        assert_eq!(said, "there\n", "the other processes did not start");
        Self(child)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        if let Err(error) = self.0.wait() {
            eprintln!("wait for the other processes: {error}");
        }
    }
}
