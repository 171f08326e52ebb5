//! Socket files whose daemon is gone.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::{fs::FileTypeExt as _, fs::OpenOptionsExt as _},
    path::Path,
};

use nix::fcntl::{Flock, FlockArg};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{SocketError, socket::lock_path};

/// What was found in a socket's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stale {
    /// Nothing.
    Missing,
    /// A file that was stale, and is gone now.
    Removed,
    /// Somebody serves it. It was left alone.
    Served,
    /// No daemon of ours has made it: no socket, or one without a lock file. It was left alone.
    Foreign,
}

/// Removes a socket file when the daemon that made it is dead: nobody holds its lock, and nobody answers. The lock is
/// held meanwhile, so that no daemon can start in between. The lock file stays, as it does when a daemon stops:
/// removing it would let two daemons lock two files of one name.
///
/// # Errors
///
/// [`SocketError`]; nothing is changed then.
pub fn remove_stale(path: &Path, kind: Type) -> Result<Stale, SocketError> {
    let failed = |path: &Path, call| {
        let path = path.to_owned();
        move |source| SocketError::Syscall { path, call, source }
    };
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {}
        Ok(_) => return Ok(Stale::Foreign),
        Err(error) if is_missing(&error) => return Ok(Stale::Missing),
        Err(error) => return Err(failed(path, "stat")(error)),
    }
    let beside = lock_path(path);
    let file = match OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(&beside) {
        Err(error) if is_missing(&error) => return Ok(Stale::Foreign),
        result => result.map_err(failed(&beside, "open"))?,
    };
    let _lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => return Ok(Stale::Served),
        result => result.map_err(|(_, errno)| failed(&beside, "flock")(errno.into()))?,
    };
    if !is_refused(path, kind).map_err(failed(path, "connect"))? {
        return Ok(Stale::Served);
    }
    fs::remove_file(path).map_err(failed(path, "remove"))?;
    Ok(Stale::Removed)
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Whether nobody listens there. Does not wait for one who is busy.
fn is_refused(path: &Path, kind: Type) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, kind.nonblocking(), None)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::SocketFile, *};

    #[test]
    fn only_the_socket_of_a_dead_daemon_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let remove = || remove_stale(&path, Type::STREAM).unwrap();
        assert_eq!(remove(), Stale::Missing);
        fs::write(&path, "precious").unwrap();
        assert_eq!(remove(), Stale::Foreign);
        fs::remove_file(&path).unwrap();
        // Without a lock file, even where nobody listens any more.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(remove(), Stale::Foreign);
        let (file, listener) = SocketFile::bind(&path, Type::STREAM).unwrap();
        assert_eq!(remove(), Stale::Served);
        // Dies without removing the file: as SIGKILL.
        let kept = dir.path().join("kept");
        fs::hard_link(&path, &kept).unwrap();
        drop((file, listener));
        fs::rename(&kept, &path).unwrap();
        assert_eq!(remove(), Stale::Removed);
        assert!(!path.exists());
        assert_eq!(remove(), Stale::Missing);
    }
}
