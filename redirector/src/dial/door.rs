//! Unix sockets as destinations, and which may not be: whoever reaches a control socket commands redirector as root.
//!
//! A socket is known by device and inode, so by whatever path it is reached: a hard link, a bind mount, a symbolic link.
//! A path can lead elsewhere at any time, so the file is opened, looked at, and connected to by that fd.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{FileTypeExt as _, MetadataExt as _},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::fcntl::OFlag;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{net::UnixStream, sync::Semaphore};

use super::connect::DialFailure;
use crate::{
    config::Engine,
    locate::Opener,
    observe::NotDelivered,
    sys::{self, blocking::blocking, socket::of_peer},
};

/// Where other engines listen by default. Docker's and Podman's are set up.
const ENGINES: [&str; 2] = ["/run/containerd/containerd.sock", "/run/crio/crio.sock"];

const REFUSED: &str = "it is a control socket of redirector: clients would command it";

/// What a file is known by, while it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    dev: u64,
    inode: u64,
}

impl Identity {
    fn of(file: &fs::Metadata) -> Self {
        Self { dev: file.dev(), inode: file.ino() }
    }

    fn at(path: impl AsRef<Path>) -> io::Result<Self> {
        fs::metadata(path).map(|file| Self::of(&file))
    }
}

/// The sockets of this daemon, which are destinations of no rule.
#[derive(Debug)]
pub struct OwnSockets {
    /// Held open: nobody else's file gets these inodes.
    held: Vec<(File, Identity)>,
    /// What this process runs. Another process that runs it is another daemon.
    program: Option<Identity>,
}

impl OwnSockets {
    /// Those at these paths, which are bound.
    ///
    /// # Errors
    ///
    /// As open(2), fstat(2).
    pub fn at(paths: &[&Path]) -> io::Result<Self> {
        let hold = |path: &&Path| {
            let file = open(path, OFlag::O_NOFOLLOW)?;
            let identity = Identity::of(&file.metadata()?);
            Ok((file, identity))
        };
        let held = paths.iter().map(hold).collect::<io::Result<_>>()?;
        Ok(Self { held, program: Identity::at("/proc/self/exe").ok() })
    }

    /// Whether a rule may lead there as the path is now. Gives what may surprise. Blocks.
    pub(crate) fn judge(&self, path: &Path, opener: &Opener) -> Result<Option<String>, &'static str> {
        // Ours have files. Who listens at an abstract one is seen at each dial.
        if abstract_name(path).is_some() {
            return Ok(None);
        }
        let missing = || {
            format!(
                "there is no `{}` yet: the rule is unavailable until somebody listens there",
                path.display()
            )
        };
        let Ok(file) = open(path, OFlag::empty()) else { return Ok(Some(missing())) };
        let Ok(metadata) = file.metadata() else { return Ok(Some(missing())) };
        if !metadata.file_type().is_socket() {
            return Ok(Some(format!("`{}` is no socket: nobody can be connected to there", path.display())));
        }
        let identity = Identity::of(&metadata);
        if self.has(identity) || self.is_locked_by_another(&file) {
            return Err(REFUSED);
        }
        let engines = Engine::ALL.into_iter().map(|engine| opener.engines().socket(engine));
        let mut engines = engines.chain(ENGINES.iter().map(Path::new));
        let is_engine = engines.any(|engine| Identity::at(engine).is_ok_and(|engine| engine == identity));
        let warning = || {
            format!(
                "`{}` is a container engine's socket: clients can do with it what root can do",
                path.display()
            )
        };
        Ok(is_engine.then(warning))
    }

    /// Connects to the socket at a path, unless it is one of redirector's. `None`: its backlog is full. Blocks for as long as the
    /// file systems of the path, and of the program that listens there, like.
    fn connect_to(&self, path: &Path) -> Result<Option<Socket>, DialFailure> {
        let refused = || {
            DialFailure::Because(
                NotDelivered::OwnSocket,
                io::Error::new(io::ErrorKind::PermissionDenied, REFUSED),
            )
        };
        let file = abstract_name(path).is_none().then(|| open(path, OFlag::empty())).transpose()?;
        if let Some(file) = &file
            && self.has(Identity::of(&file.metadata()?))
        {
            return Err(refused());
        }
        let address = match &file {
            Some(file) => path_of(file),
            None => abstract_name(path).unwrap_or_default(),
        };
        let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
        match socket.connect(&SockAddr::unix(address)?) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            result => result?,
        }
        // Nothing has been said yet.
        match of_peer(&socket, |pid| self.is_daemon(pid))? {
            Some(true) => Err(refused()),
            Some(false) | None => Ok(Some(socket)),
        }
    }

    fn has(&self, identity: Identity) -> bool {
        self.held.iter().any(|(_, own)| *own == identity)
    }

    /// Whether another daemon holds the lock of a socket, which is beside it.
    fn is_locked_by_another(&self, socket: &File) -> bool {
        let Ok(path) = fs::read_link(path_of(socket)) else { return false };
        let mut beside = OsString::from(path);
        beside.push(".lock");
        let Ok(lock) = Identity::at(beside) else { return false };
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        locks.lines().filter_map(|line| flock(line, lock.inode)).any(|pid| self.is_daemon(pid))
    }

    /// Whether a process runs the program of this one.
    fn is_daemon(&self, pid: i32) -> bool {
        let program = Identity::at(format!("/proc/{pid}/exe")).ok();
        program.is_some() && program == self.program
    }
}

/// The process that has an inode locked by flock(2), by a line of proc_locks(5).
fn flock(line: &str, inode: u64) -> Option<i32> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (kind, pid, file) = (fields.next()?, fields.nth(2)?, fields.next()?);
    let locked = file.rsplit(':').next()?.parse::<u64>().ok()?;
    if kind == "FLOCK" && locked == inode { pid.parse().ok() } else { None }
}

/// Dials of one rule that look at its path at once: a file system that does not answer holds up no more threads.
const AT_ONCE: usize = 8;

/// The Unix socket that a rule leads to.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    own: Arc<OwnSockets>,
    places: Arc<Semaphore>,
}

impl Door {
    pub(crate) fn new(path: PathBuf, own: Arc<OwnSockets>) -> Self {
        Self { path, own, places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Connects to the socket that is there now, unless it is one of redirector's; waits while its backlog is full, as
    /// a blocking connect(2) does.
    pub(super) async fn connect(&self) -> Result<UnixStream, DialFailure> {
        const FIRST_PAUSE: Duration = Duration::from_millis(1);
        const LONGEST_PAUSE: Duration = Duration::from_millis(100);
        let mut pause = FIRST_PAUSE;
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await.map_err(io::Error::other)?;
            let (path, own) = (self.path.clone(), Arc::clone(&self.own));
            let knock = move || {
                let _place = place;
                own.connect_to(&path)
            };
            if let Some(socket) = blocking(knock).await?? {
                return Ok(UnixStream::from_std(socket.into())?);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    sys::path::hold(path, flags)
}

/// As the kernel knows an abstract socket (unix(7)): with NUL in front, where people write `@`.
fn abstract_name(path: &Path) -> Option<PathBuf> {
    let name = path.as_os_str().as_bytes().strip_prefix(b"@")?;
    Some(OsString::from_vec([b"\0", name].concat()).into())
}

fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_told_by_its_kind_and_inode() {
        let line = "1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF";
        assert_eq!(flock(line, 5678), Some(1234));
        assert_eq!(flock(line, 567), None);
        assert_eq!(flock(&line.replace("FLOCK ", "POSIX "), 5678), None);
        // Somebody waits for it.
        assert_eq!(flock("1: -> FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF", 5678), None);
    }

    #[test]
    fn a_socket_is_known_by_every_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let own = OwnSockets::at(&[&path]).unwrap();
        let (hard, soft) = (dir.path().join("hard"), dir.path().join("soft"));
        fs::hard_link(&path, &hard).unwrap();
        std::os::unix::fs::symlink(&path, &soft).unwrap();
        let through = PathBuf::from(format!("/proc/{}/root{}", std::process::id(), path.display()));
        for path in [&path, &hard, &soft, &through] {
            assert_eq!(own.judge(path, &Opener::default()), Err(REFUSED), "{}", path.display());
        }
        let other = dir.path().join("other");
        let _listener = std::os::unix::net::UnixListener::bind(&other).unwrap();
        assert_eq!(own.judge(&other, &Opener::default()), Ok(None));
        let said = |path: &Path| own.judge(path, &Opener::default()).unwrap().unwrap_or_default();
        assert!(said(&dir.path().join("none")).contains("yet"));
        assert!(said(dir.path()).contains("no socket"));
        assert_eq!(said(Path::new("@nobody")), "");
    }
}
