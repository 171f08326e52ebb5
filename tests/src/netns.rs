//! A network namespace.
//!
//! The harness keeps no file of one open, nor a thread in it: whether a namespace dies is what some tests are
//! about. Sockets are made inside and used from outside, as the daemon does it too; a socket that a test still
//! holds keeps its namespace alive.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    command::{self, Outcome, must},
    dir,
};

/// A network namespace of one test.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    keeper: Mutex<Keeper>,
}

/// What keeps it alive.
#[derive(Debug)]
enum Keeper {
    /// A mount, as `ip netns` makes it.
    Name(String),
    /// A process, and nothing else. `cat`, so that it ends by itself when we do: its input ends.
    Process(Child),
    /// Nothing any more.
    Nobody,
}

impl Netns {
    /// A namespace with a name of its own.
    #[track_caller]
    #[must_use]
    pub fn new() -> Self {
        Self::named(&format!("rdt-{}", dir::unique()))
    }

    /// A namespace with that name.
    #[track_caller]
    #[must_use]
    pub fn named(name: &str) -> Self {
        must(Command::new("ip").args(["netns", "add", name]));
        Self { path: Path::new("/run/netns").join(name), keeper: Mutex::new(Keeper::Name(name.to_owned())) }
    }

    /// A namespace that only a process keeps.
    #[track_caller]
    #[must_use]
    pub fn of_process() -> Self {
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command::spawn(&mut command);
        // When it answers it is `cat` already, and inside.
        child.stdin.as_mut().expect("a pipe").write_all(b"there?\n").expect("ask the process");
        let mut answer = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe"))
            .read_line(&mut answer)
            .expect("read its answer");
        assert_eq!(answer, "there?\n", "the process that keeps a namespace did not start");
        Self {
            path: format!("/proc/{}/ns/net", child.id()).into(),
            keeper: Mutex::new(Keeper::Process(child)),
        }
    }

    /// Its nsfs file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A name for a namespace that a process keeps.
    #[track_caller]
    #[must_use]
    pub fn with_a_name(&self) -> Self {
        let name = format!("rdt-{}", dir::unique());
        let target = self.target();
        let pid = target.strip_prefix("pid:").unwrap_or_else(|| panic!("{target} has a name already"));
        must(Command::new("ip").args(["netns", "attach", &name, pid]));
        Self { path: Path::new("/run/netns").join(&name), keeper: Mutex::new(Keeper::Name(name)) }
    }

    /// The name that `ip netns` knows it by.
    #[track_caller]
    #[must_use]
    pub fn name(&self) -> String {
        match &*self.keeper() {
            Keeper::Name(name) => name.clone(),
            Keeper::Process(_) | Keeper::Nobody => panic!("{} has no name", self.path.display()),
        }
    }

    /// As a user names it to redirector: `netns:NAME` or `pid:N`.
    #[track_caller]
    #[must_use]
    pub fn target(&self) -> String {
        match &*self.keeper() {
            Keeper::Name(name) => format!("netns:{name}"),
            Keeper::Process(child) => format!("pid:{}", child.id()),
            Keeper::Nobody => panic!("{} was deleted", self.path.display()),
        }
    }

    fn keeper(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its inode.
    #[track_caller]
    #[must_use]
    pub fn inode(&self) -> u64 {
        fs::metadata(&self.path).unwrap_or_else(|error| panic!("stat {}: {error}", self.path.display())).ino()
    }

    /// Its cookie, which no other namespace ever has until a reboot.
    #[track_caller]
    #[must_use]
    pub fn cookie(&self) -> u64 {
        self.enter(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
            enter::cookie(&socket)
        })
        .expect("SO_NETNS_COOKIE")
    }

    /// Opens its nsfs file. As long as that is open the namespace lives.
    #[track_caller]
    #[must_use]
    pub fn open(&self) -> File {
        File::open(&self.path).unwrap_or_else(|error| panic!("open {}: {error}", self.path.display()))
    }

    /// Runs code inside: a thread of its own, and what that starts.
    #[track_caller]
    pub fn enter<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        match enter::enter(&self.open(), run) {
            Ok(value) => value,
            Err(error) => panic!("enter {}: {error}", self.path.display()),
        }
    }

    /// Runs a command inside.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        self.enter(|| command::run(Command::new(program).args(arguments)))
    }

    /// Runs a command inside that must succeed.
    #[track_caller]
    pub fn must(&self, program: &str, arguments: &[&str]) -> Outcome {
        self.run(program, arguments).success()
    }

    /// Runs `ip` inside, a command a line.
    #[track_caller]
    pub fn ip(&self, batch: &str) {
        let outcome =
            self.enter(|| command::run_with_stdin(Command::new("ip").args(["-batch", "-"]), batch)).success();
        assert!(outcome.stderr.is_empty(), "ip {batch}: {outcome}");
    }

    /// Sets a sysctl inside, by its path under /proc/sys.
    #[track_caller]
    pub fn sysctl(&self, name: &str, value: &str) {
        self.enter(|| fs::write(Path::new("/proc/sys").join(name), value))
            .unwrap_or_else(|error| panic!("set {name} to {value}: {error}"));
    }

    /// Takes away what keeps it: the mount, or the process.
    #[track_caller]
    pub fn delete(&self) {
        let keeper = std::mem::replace(&mut *self.keeper(), Keeper::Nobody);
        match keeper {
            Keeper::Name(name) => drop(must(Command::new("ip").args(["netns", "delete", &name]))),
            Keeper::Process(child) => end(child),
            Keeper::Nobody => panic!("{} was deleted before", self.path.display()),
        }
    }
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    if let Err(error) = child.wait() {
        eprintln!("wait for the process that kept a namespace: {error}");
    }
}

impl Default for Netns {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let keeper = std::mem::replace(&mut *self.keeper(), Keeper::Nobody);
        match keeper {
            Keeper::Name(name) => {
                let outcome = command::run(Command::new("ip").args(["netns", "delete", &name]));
                if !outcome.status.success() {
                    eprintln!("{outcome}");
                }
            }
            Keeper::Process(child) => end(child),
            Keeper::Nobody => {}
        }
    }
}

// TO BE REPLACED by redirector::netns::enter.
mod enter {
    use std::{io, os::fd::AsFd, thread};
    pub(super) fn cookie(_: &socket2::Socket) -> io::Result<u64> {
        Ok(0)
    }
    #[expect(clippy::disallowed_methods, reason = "until redirector::netns::enter is there")]
    pub(super) fn enter<T: Send>(
        netns: &(impl AsFd + Sync),
        run: impl FnOnce() -> T + Send,
    ) -> io::Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET)?;
                    Ok(run())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
