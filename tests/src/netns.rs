//! A network namespace.
//!
//! The harness keeps no file of one open, nor a thread in it: whether a namespace dies is what some tests are
//! about. Sockets are made inside and used from outside, as the daemon does it too; a socket that a test still
//! holds keeps its namespace alive.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::{
    command::{self, Outcome, must},
    dir,
    features::Feature,
    holder::Holder,
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
    /// A process, and nothing else.
    Process(Holder),
    /// Nobody any more, or somebody else.
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
        let holder = Holder::start(Command::new("unshare").args(["--net", "--", "cat"]));
        Self {
            path: format!("/proc/{}/ns/net", holder.pid()).into(),
            keeper: Mutex::new(Keeper::Process(holder)),
        }
    }

    /// The process that keeps one.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &*self.keeper() {
            Keeper::Process(holder) => holder.pid(),
            _ => panic!("no process keeps this namespace"),
        }
    }

    /// A namespace that is not ours to keep.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), keeper: Mutex::new(Keeper::Nobody) }
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
            Keeper::Process(holder) => format!("pid:{}", holder.pid()),
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

    /// Its cookie, which no other namespace ever has until a reboot; where the kernel has none, its inode.
    #[track_caller]
    #[must_use]
    pub fn cookie(&self) -> u64 {
        let socket =
            || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
        if Feature::NetnsCookie.is_here() {
            self.enter(|| redirector::sys::socket::netns_cookie(socket())).expect("SO_NETNS_COOKIE")
        } else {
            self.inode()
        }
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
        match redirector::netns::enter(self.open(), run) {
            Ok(value) => value,
            Err(error) => panic!("enter {}: {error}", self.path.display()),
        }
    }

    /// Runs code inside, on a thread that is the user `nobody`'s and has no capability.
    #[track_caller]
    pub fn enter_as_nobody<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        const NOBODY: u32 = 65_534;
        self.enter(|| {
            let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
            set_thread_groups(&[]).expect("setgroups");
            set_thread_res_gid(group, group, group).expect("setresgid");
            set_thread_res_uid(user, user, user).expect("setresuid");
            run()
        })
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
            Keeper::Process(holder) => drop(holder),
            Keeper::Nobody => panic!("{} was deleted before", self.path.display()),
        }
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
            Keeper::Process(holder) => drop(holder),
            Keeper::Nobody => {}
        }
    }
}
