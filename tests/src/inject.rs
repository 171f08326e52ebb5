//! Faults by injection: a daemon whose n-th system call fails, panics, or kills it. How is said in
//! `redirector/src/sys/inject.rs`.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{daemon::Daemon, dir::Dir};

/// The binary that can do this: `$REDIRECTOR_INJECT_BIN`, which `cargo xtask soak` sets.
#[track_caller]
#[must_use]
pub fn binary() -> PathBuf {
    let path = env::var_os("REDIRECTOR_INJECT_BIN").map(PathBuf::from);
    path.filter(|path| path.exists()).expect("$REDIRECTOR_INJECT_BIN: run this by `cargo xtask soak inject`")
}

/// What happens at a system call, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with `EIO`.
    Fail(usize),
    /// The process is killed before it.
    Kill(usize),
    /// The task that makes it panics.
    Panic(usize),
}

/// The plan of one process.
#[derive(Debug)]
pub struct Faults {
    dir: Dir,
    round: AtomicU32,
}

impl Faults {
    /// Nothing is planned yet.
    #[track_caller]
    #[must_use]
    pub fn new() -> Self {
        Self { dir: Dir::new(), round: AtomicU32::new(0) }
    }

    /// A command of the binary that follows the plan.
    #[track_caller]
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.planned(Command::new(binary()), arguments)
    }

    fn planned(&self, mut command: Command, arguments: &[&str]) -> Command {
        command.args(arguments).env("REDIRECTOR_INJECT", self.plan()).env_remove("RUST_LOG");
        command
    }

    /// A daemon that follows the plan. It has few files, so it makes nothing ahead: calls that it makes in the background would
    /// be counted with those that the plan is about.
    #[track_caller]
    #[must_use]
    pub fn daemon(&self) -> Daemon {
        let mut few_files = Command::new("sh");
        few_files.args(["-c", "ulimit -n 1000 && exec \"$@\"", "sh"]).arg(binary());
        Daemon::spawn(&mut self.planned(few_files, &["run"]), &[])
    }

    fn plan(&self) -> PathBuf {
        self.dir.join("plan")
    }

    /// Does something while a fault is planned. Gives the names of the calls that the process made meanwhile, too.
    #[track_caller]
    pub fn during<T>(&self, fault: Fault, act: impl FnOnce() -> T) -> (T, Vec<String>) {
        let round = self.round.fetch_add(1, Ordering::Relaxed);
        let (calls, draft) = (self.dir.join("plan.calls"), self.dir.join("draft"));
        fs::write(&calls, "").expect("begin with no call");
        // The process may become another user.
        fs::set_permissions(&calls, fs::Permissions::from_mode(0o666)).expect("let everybody write");
        let text = match fault {
            Fault::Fail(number) => format!("{round} fail {number} {}", nix::libc::EIO),
            Fault::Kill(number) => format!("{round} kill {number}"),
            Fault::Panic(number) => format!("{round} panic {number}"),
        };
        // Renamed, so that no half of it is read.
        fs::write(&draft, text).expect("write a plan");
        fs::rename(draft, self.plan()).expect("rename a plan");
        let result = act();
        fs::remove_file(self.plan()).expect("remove a plan");
        let calls = fs::read_to_string(calls).expect("read the calls");
        (result, calls.lines().map(str::to_owned).collect())
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self::new()
    }
}
