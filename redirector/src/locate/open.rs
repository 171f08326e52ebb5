//! Opening a target.

use std::{
    fmt,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::statfs::{FsType, fstatfs},
};

use super::{
    engines::{ContainerId, EngineError},
    processes::{Seen, Thread},
    walk::{hold_along, open_held},
};
use crate::{
    config::{Target, meant::nearest},
    netns::{NetnsFile, ProcessLink},
    sys::{
        namespace::{namespace_type, pidfd_open},
        path,
    },
};

/// Where `ip netns` keeps its names (iproute2, `NETNS_RUN_DIR`).
pub const NAMED: &str = "/run/netns";

/// `NSFS_MAGIC`, include/uapi/linux/magic.h.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);

/// Who asks: `pid:` and `self` mean what they mean to that process.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// In the daemon's PID namespace; `None` when it cannot be seen from there.
    pub pid: Option<i32>,
    /// Effective user.
    pub uid: Option<u32>,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, uid } = self;
        match (uid, pid) {
            (Some(uid), Some(pid)) => write!(f, "uid {uid} pid {pid}"),
            (Some(uid), None) => write!(f, "uid {uid}"),
            (None, Some(pid)) => write!(f, "pid {pid}"),
            (None, None) => f.write_str("nobody"),
        }
    }
}

impl Caller {
    /// No process: what it asks for has another name than `pid:` and `self`.
    pub const NOBODY: Self = Self { pid: None, uid: None };

    /// This process.
    #[must_use]
    pub fn this_process() -> Self {
        let pid = i32::try_from(std::process::id()).ok();
        Self { pid, uid: Some(nix::unistd::geteuid().as_raw()) }
    }
}

/// An opened namespace. Keeps it alive, so it is for the length of one command.
#[derive(Debug)]
pub struct OpenNetns {
    /// An nsfs fd.
    pub fd: OwnedFd,
    /// Which one it is, while it is open.
    pub file: NetnsFile,
    /// By which path. It may lead to another namespace later, or nowhere.
    pub path: PathBuf,
    /// Links of processes that the path leads through: it is no name then.
    pub processes: Arc<[ProcessLink]>,
    /// Whether it is the daemon's own or PID 1's, or that of a container engine.
    pub host: bool,
    /// Which container it was found by.
    pub container: Option<ContainerId>,
}

/// Why a target is no namespace.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// There is nothing of that name.
    #[error("target `{target}`: {what}")]
    NotFound {
        /// As the user wrote it.
        target: Target,
        /// What is not there.
        what: String,
    },
    /// A system call.
    #[error("target `{target}`: {call}")]
    Syscall {
        /// As the user wrote it.
        target: Target,
        /// What failed, with its object.
        call: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is something else.
    #[error("target `{target}`: `{path}` is not a network namespace but {what}")]
    NotANetns {
        /// As the user wrote it.
        target: Target,
        /// What was opened.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The container is there, and has no namespace now.
    #[error("target `{target}`: the container is not running: its state is `{}`", status.escape_debug())]
    NotRunning {
        /// As the user wrote it.
        target: Target,
        /// Which container.
        id: ContainerId,
        /// As the engine calls it.
        status: String,
    },
    /// The engine says nothing of use about a container.
    #[error("target `{target}`")]
    Engine {
        /// As the user wrote it.
        target: Target,
        /// What it said.
        #[source]
        source: EngineError,
    },
    /// The engine knows the container's process, and that number means another one here.
    #[error(
        "target `{target}`: its process is {pid} for the engine, which is in another PID namespace, and cannot be found from here"
    )]
    OtherPidNamespaceOfEngine {
        /// As the user wrote it.
        target: Target,
        /// In the engine's PID namespace.
        pid: i32,
    },
    /// `pid:` and `self` are of the daemon's PID namespace.
    #[error("target `{target}`: the caller is in another PID namespace than the daemon")]
    OtherPidNamespace {
        /// As the user wrote it.
        target: Target,
    },
}

impl TargetError {
    /// Whether nothing of that name exists.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. } | Self::NotRunning { .. })
    }

    /// Whether what is named is not there now, or whoever could tell does not: it may come by itself.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.is_not_found() || matches!(self, Self::Engine { .. })
    }

    /// Whether there is something else than what can be meant.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::NotANetns { .. })
    }

    /// A known mend.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { target: Target::Netns(meant), .. } => {
                let mut names: Vec<String> = fs::read_dir(NAMED)
                    .into_iter()
                    .flatten()
                    .filter_map(|entry| {
                        Some(entry.ok()?.file_name().to_string_lossy().escape_debug().to_string())
                    })
                    .collect();
                names.sort();
                if let Some(name) = nearest(meant, names.iter().map(String::as_str)) {
                    return Some(format!("did you mean `netns:{name}`?"));
                }
                names.truncate(5);
                (!names.is_empty())
                    .then(|| format!("`ip netns list` shows the names; some are {}", names.join(", ")))
            }
            Self::NotANetns { what: OTHER_FILE, .. } => Some(
                "a network namespace is a file like /run/netns/NAME; for that of a process use `pid:N`"
                    .into(),
            ),
            Self::Engine { source, .. } => source.hint(),
            Self::NotRunning { .. } => Some("start it".into()),
            Self::OtherPidNamespaceOfEngine { .. } => Some(
                "run the daemon in the engine's PID namespace or in one around it (a container with `--pid=host`), or name the namespace by `netns:` or `path:`".into(),
            ),
            Self::OtherPidNamespace { .. } => Some("name the namespace by `netns:` or `path:`".into()),
            _ => None,
        }
    }
}

const OTHER_FILE: &str = "another kind of file";
const OTHER_NAMESPACE: &str = "a namespace of another kind";

/// Opens a target. [`Target::Cookie`] is not for here: a cookie cannot be opened, only looked up. Nor is
/// [`Target::Container`]: [`super::Opener`] asks the engine first.
///
/// # Errors
///
/// [`TargetError`].
pub fn open(target: &Target, caller: Caller) -> Result<OpenNetns, TargetError> {
    match target {
        Target::Netns(name) => {
            let path = Path::new(NAMED).join(name);
            open_path(target, &path).map_err(|error| match error {
                // `ip netns` makes the file before it mounts the namespace there, and may leave it.
                TargetError::NotANetns { what: OTHER_FILE, .. } if is_empty_file(&path) => {
                    let what = format!("nothing is mounted at `{}`", path.display());
                    TargetError::NotFound { target: target.clone(), what }
                }
                error => error,
            })
        }
        Target::Path(path) => open_path(target, path),
        Target::Pid(pid) => {
            check_pid_namespace(target, caller)?;
            open_process(target, i32::try_from(*pid).unwrap_or(i32::MAX))
        }
        Target::Caller => match caller.pid {
            Some(pid) => open_process(target, pid),
            None => Err(TargetError::OtherPidNamespace { target: target.clone() }),
        },
        Target::Host => open_host(target),
        Target::Container(_) => {
            Err(TargetError::NotFound { target: target.clone(), what: "no engine was asked".into() })
        }
        Target::Cookie(_) => Err(TargetError::NotFound {
            target: target.clone(),
            what: "this namespace is not steered".into(),
        }),
    }
}

/// Opens PID 1's namespace. That it is ours can be seen where it may not be opened: PID 1 may have a capability more.
fn open_host(target: &Target) -> Result<OpenNetns, TargetError> {
    let first = Thread { process: 1, thread: 1 };
    let path = if first.netns() == Seen::Elsewhere { "/proc/self/ns/net" } else { "/proc/1/ns/net" };
    let opened = open_path(target, Path::new(path))?;
    // It is whose the host's is, and no process's: PID 1 has no successor.
    Ok(OpenNetns { host: true, processes: Arc::default(), ..opened })
}

/// The file of the namespace that a name of `ip netns`, or a path, leads to now, without opening it; `None` where it leads to none.
#[must_use]
pub fn file_of(target: &Target) -> Option<NetnsFile> {
    let path = match target {
        Target::Netns(name) => Path::new(NAMED).join(name),
        Target::Path(path) => path.clone(),
        _ => return None,
    };
    let metadata = fs::metadata(path).ok()?;
    Some(NetnsFile { dev: metadata.dev(), inode: metadata.ino() })
}

fn is_empty_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

fn syscall(target: &Target, call: String) -> impl FnOnce(io::Error) -> TargetError {
    move |source| TargetError::Syscall { target: target.clone(), call, source }
}

pub(super) fn open_path(target: &Target, path: &Path) -> Result<OpenNetns, TargetError> {
    let (held, processes) = hold_along(path).map_err(|source| {
        if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
            let what = format!("there is no `{}`", path.display());
            TargetError::NotFound { target: target.clone(), what }
        } else {
            syscall(target, format!("open `{}`", path.display()))(source)
        }
    })?;
    check(target, path, &held, processes)
}

/// Opens a process's namespace: the pidfd before and after says that it was that process's.
pub(super) fn open_process(target: &Target, pid: i32) -> Result<OpenNetns, TargetError> {
    let gone =
        || TargetError::NotFound { target: target.clone(), what: format!("there is no process {pid}") };
    let pidfd = pidfd_open(pid).map_err(|source| match source.raw_os_error() {
        Some(nix::libc::ESRCH) => gone(),
        // A thread that is not its process's first.
        Some(nix::libc::EINVAL | nix::libc::ENOENT) => gone(),
        _ => syscall(target, format!("pidfd_open {pid}"))(source),
    })?;
    let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
    let directory = path::hold(format!("/proc/{pid}/ns"), OFlag::O_DIRECTORY);
    let opened = directory.and_then(|directory| Ok((File::open(&path)?, directory)));
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    let ended = poll(&mut fds, PollTimeout::ZERO);
    if ended.map_err(|errno| syscall(target, format!("poll pidfd {pid}"))(errno.into()))? > 0 {
        // A zombie still has its number and a line in ps(1).
        let what = format!("process {pid} has ended");
        return Err(TargetError::NotFound { target: target.clone(), what });
    }
    let (file, directory) = opened.map_err(|source| match source.kind() {
        // Its first thread has ended and others have not.
        io::ErrorKind::NotFound => {
            let what = format!("process {pid} has no network namespace any more");
            TargetError::NotFound { target: target.clone(), what }
        }
        _ => syscall(target, format!("open `{}`", path.display()))(source),
    })?;
    check(target, &path, &file.into(), vec![ProcessLink::new(directory.into(), "net")])
}

fn check(
    target: &Target,
    path: &Path,
    held: &OwnedFd,
    processes: Vec<ProcessLink>,
) -> Result<OpenNetns, TargetError> {
    let not = |what| TargetError::NotANetns { target: target.clone(), path: path.to_owned(), what };
    let filesystem = fstatfs(held)
        .map_err(|errno| syscall(target, format!("fstatfs `{}`", path.display()))(errno.into()))?;
    if filesystem.filesystem_type() != NSFS_MAGIC {
        return Err(not(OTHER_FILE));
    }
    let file = open_held(held).map_err(syscall(target, format!("open `{}`", path.display())))?;
    let kind = namespace_type(&file)
        .map_err(syscall(target, format!("ioctl NS_GET_NSTYPE `{}`", path.display())))?;
    if kind != nix::libc::CLONE_NEWNET {
        return Err(not(OTHER_NAMESPACE));
    }
    let identity = NetnsFile::of(&file).map_err(syscall(target, format!("fstat `{}`", path.display())))?;
    let same = |path: &str| is_file(Path::new(path), identity);
    let host = same("/proc/self/ns/net") || same("/proc/1/ns/net");
    let (path, processes) = (path.to_owned(), processes.into());
    Ok(OpenNetns { fd: file.into(), file: identity, path, processes, host, container: None })
}

/// Whether a path is this nsfs file; one that cannot be read is not.
pub(super) fn is_file(path: &Path, file: NetnsFile) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.dev() == file.dev && metadata.ino() == file.inode)
}

/// A number means another process in another PID namespace.
fn check_pid_namespace(target: &Target, caller: Caller) -> Result<(), TargetError> {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    let callers = caller.pid.and_then(|pid| of(&pid.to_string()));
    if callers.is_none() || callers != of("self") {
        return Err(TargetError::OtherPidNamespace { target: target.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;

    fn refusal(target: &str, caller: Caller) -> TargetError {
        open(&target.parse().unwrap(), caller).unwrap_err()
    }

    #[test]
    fn one_namespace_is_one_by_every_name() {
        let pid = std::process::id();
        let open = |target: &str| open(&target.parse().unwrap(), Caller::this_process()).unwrap();
        let own = open("self");
        assert!(own.host);
        // The machine of a test may be one whose PID 1 is elsewhere.
        assert!(open("host").host && open("host").processes.is_empty());
        for target in [format!("pid:{pid}"), format!("path:/proc/{pid}/ns/net")] {
            let opened = open(&target);
            assert_eq!(opened.file, own.file, "{target}");
            assert!(!opened.processes.is_empty(), "{target}");
        }
    }

    #[test]
    fn what_is_no_network_namespace_is_refused_and_nothing_blocks() {
        let fifo = std::env::temp_dir().join(format!("redirector-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = refusal(&format!("path:{}", fifo.display()), Caller::this_process());
        fs::remove_file(&fifo).unwrap();
        assert!(matches!(error, TargetError::NotANetns { what: OTHER_FILE, .. }), "{error}");
        assert!(error.hint().is_some());
        for (path, expected) in
            [("/proc/self/ns/mnt", OTHER_NAMESPACE), ("/proc/self/status", OTHER_FILE), ("/", OTHER_FILE)]
        {
            let error = refusal(&format!("path:{path}"), Caller::this_process());
            assert!(matches!(error, TargetError::NotANetns { what, .. } if what == expected), "{error}");
            assert!(!error.is_not_found());
        }
    }

    /// A watchdog begins to count when it is opened, and what an engine names is opened as root.
    #[test]
    fn what_is_no_network_namespace_is_not_even_opened() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        fs::write(&plain, "").unwrap();
        let opened = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).unwrap();
        opened.add_watch(&plain, AddWatchFlags::IN_OPEN).unwrap();
        let error = refusal(&format!("path:{}", plain.display()), Caller::this_process());
        assert!(matches!(error, TargetError::NotANetns { what: OTHER_FILE, .. }), "{error}");
        assert_eq!(opened.read_events().unwrap_err(), nix::errno::Errno::EAGAIN);
        drop(File::open(&plain).unwrap());
        assert_eq!(opened.read_events().unwrap().len(), 1, "it would have been seen");
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for target in
            ["netns:no such name", "path:/no/such/file", "path:/dev/null/x", "pid:2147483647", "cookie:1"]
        {
            let error = refusal(target, Caller::this_process());
            assert!(error.is_not_found(), "{error}");
            assert!(std::error::Error::source(&error).is_none());
        }
    }

    #[test]
    fn a_zombie_is_not_found_and_said_to_have_ended() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let pidfd = pidfd_open(i32::try_from(child.id()).unwrap()).unwrap();
        drop(child.stdin.take());
        poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
        let error = refusal(&format!("pid:{}", child.id()), Caller::this_process());
        child.wait().unwrap();
        assert!(error.is_not_found() && error.to_string().contains("has ended"), "{error}");
    }

    #[test]
    fn a_caller_that_cannot_be_seen_names_no_process() {
        for target in ["pid:1", "self"] {
            let error = refusal(target, Caller::NOBODY);
            assert!(matches!(error, TargetError::OtherPidNamespace { .. }), "{error}");
        }
    }
}
