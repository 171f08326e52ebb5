//! Sockets as files: whose they are, and that there is one daemon behind each.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::stat::{Mode, fchmod},
};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sys;

/// Where daemon and command line meet without `--socket` and `$REDIRECTOR_SOCKET`.
pub const DEFAULT_SOCKET: &str = "/run/redirector/control.sock";

/// Why a socket file cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The lock is held.
    #[error("socket `{0}`: another redirector daemon is serving it")]
    InUse(PathBuf),
    /// Never removed by us.
    #[error("socket `{0}`: a file that is not a socket is in its place")]
    NotASocket(PathBuf),
    /// `sun_path` has 108 bytes.
    #[error("socket `{0}`: the path is longer than 107 bytes")]
    TooLong(PathBuf),
    /// A system call.
    #[error("socket `{path}`: {call}")]
    Syscall {
        /// The socket, or the file beside it.
        path: PathBuf,
        /// What failed.
        call: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The file of a bound socket. Dropping it removes the file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Held for as long as this process is the daemon of this socket. The file stays: removing it would let two
    /// daemons lock two files of one name.
    _lock: Flock<File>,
}

impl SocketFile {
    /// Binds a listening Unix socket, mode 0600, and makes its directory when that is missing. A stale file is
    /// replaced.
    ///
    /// # Errors
    ///
    /// [`SocketError`]; nothing is changed then.
    pub fn bind(path: &Path, kind: Type) -> Result<(Self, OwnedFd), SocketError> {
        let failed = |call| move |source| SocketError::Syscall { path: path.to_owned(), call, source };
        if path.as_os_str().len() > 107 {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        if let Some(directory) = path.parent()
            && directory != Path::new("")
        {
            match fs::DirBuilder::new().mode(0o755).create(directory) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                result => result.map_err(failed("create its directory"))?,
            }
        }
        if !is_socket_or_missing(path).map_err(failed("stat"))? {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        let lock = lock(path)?;
        // Whoever served this file is dead: the lock says so.
        if fs::symlink_metadata(path).is_ok() {
            fs::remove_file(path).map_err(failed("remove the stale file"))?;
        }
        let listener = bind_private(path, kind).map_err(failed("bind"))?;
        Ok((Self { path: path.to_owned(), _lock: lock }, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "remove the socket");
        }
    }
}

fn is_socket_or_missing(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.file_type().is_socket()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// The file beside a socket's that its daemon locks.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    PathBuf::from(beside)
}

fn lock(path: &Path) -> Result<Flock<File>, SocketError> {
    let beside = lock_path(path);
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside);
    let file = open.map_err(|source| SocketError::Syscall { path: beside.clone(), call: "open", source })?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EWOULDBLOCK => SocketError::InUse(path.to_owned()),
        errno => SocketError::Syscall { path: beside, call: "flock", source: errno.into() },
    })
}

/// Binds with mode 0600 from the first moment: the mode of the socket's own inode becomes that of the file
/// (`unix_bind_bsd`, net/unix/af_unix.c).
fn bind_private(path: &Path, kind: Type) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, kind.nonblocking(), None)?;
    fchmod(socket.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    if kind == Type::STREAM {
        // Nobody there receives any, and closing them could take as long as their sender likes. Older kernels cannot.
        drop(sys::socket::refuse_fds(&socket));
    }
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(1024)?;
    Ok(socket.into())
}
