//! Going to a namespace again, without having kept anything of it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    sync::Arc,
};

use super::{NetnsCookie, NetnsFile, ProcessLink, enter};

/// Where a namespace was found, and which one it was. Keeps nothing alive.
#[derive(Clone, Debug)]
pub struct Location {
    /// An nsfs file, when it was opened.
    pub path: PathBuf,
    /// What it was.
    pub file: NetnsFile,
    /// Of that namespace.
    pub cookie: NetnsCookie,
    /// Links of processes that the path leads through: without one of them it leads elsewhere.
    pub processes: Arc<[ProcessLink]>,
}

impl Location {
    /// Whether both lead to the same namespace by the same path.
    #[must_use]
    pub fn is_as(&self, other: &Self) -> bool {
        self.cookie == other.cookie && self.path == other.path
    }

    /// Runs a closure inside, when it is still that namespace: a name and an inode number may be another's by now.
    /// As [`enter()`].
    ///
    /// # Errors
    ///
    /// `NotFound` when the path leads to another namespace, or nowhere; else as open(2), setns(2).
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let file = self.open()?;
        enter(file, || {
            let cookie = NetnsCookie::here().map_err(io::Error::other)?;
            if cookie == self.cookie { work() } else { Err(self.gone()) }
        })?
    }

    fn open(&self) -> io::Result<File> {
        // Whatever is at that path now must not hold us.
        let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&self.path);
        let file = file.map_err(|error| if leads_nowhere(&error) { self.gone() } else { error })?;
        // Not setns(2) of something else: its error would say nothing.
        if NetnsFile::of(&file)? != self.file {
            return Err(self.gone());
        }
        // Each was there before the path was opened, and is there now: the path led through these processes.
        for process in &*self.processes {
            if !process.is_there()? {
                return Err(self.gone());
            }
        }
        Ok(file)
    }

    fn gone(&self) -> io::Error {
        let what = format!("`{}` is not the namespace any more that it was", self.path.display());
        io::Error::new(io::ErrorKind::NotFound, what)
    }
}

/// Whether a file could not be opened because of what is at its path now, not because of what this host lacks.
fn leads_nowhere(error: &io::Error) -> bool {
    use nix::libc::{ELOOP, ENODEV, ENOENT, ENOTDIR, ENXIO, ESRCH};
    matches!(error.raw_os_error(), Some(ENOENT | ENOTDIR | ELOOP | ENXIO | ENODEV | ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_under_the_same_path_is_not_entered() {
        let path = PathBuf::from("/proc/self/ns/net");
        let file = NetnsFile::of(File::open(&path).unwrap()).unwrap();
        let cookie = NetnsCookie::here().unwrap();
        let here = Location { path, file, cookie, processes: Arc::default() };
        let is_gone =
            |location: &Location| location.enter(|| Ok(())).unwrap_err().kind() == io::ErrorKind::NotFound;
        assert!(is_gone(&Location { file: NetnsFile { inode: 1, ..file }, ..here.clone() }));
        assert!(is_gone(&Location { path: "/nonexistent".into(), ..here.clone() }));
        assert!(is_gone(&Location { path: "/dev/null".into(), ..here.clone() }));
        let dir = tempfile::tempdir().unwrap();
        let (socket, itself) = (dir.path().join("socket"), dir.path().join("itself"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&itself, &itself).unwrap();
        for path in [socket, itself, "/dev/null/netns".into()] {
            assert!(is_gone(&Location { path: path.clone(), ..here.clone() }), "{}", path.display());
        }
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let directory = File::open(format!("/proc/{}/ns", child.id())).unwrap();
        let of_child = Location { processes: [ProcessLink::new(directory.into(), "net")].into(), ..here };
        of_child.enter(|| Ok(())).unwrap_or_else(|error| {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
        });
        child.kill().unwrap();
        child.wait().unwrap();
        // The file and the cookie are what they were.
        assert!(is_gone(&of_child));
    }
}
