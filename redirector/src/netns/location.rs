//! Going to a namespace again, without having kept anything of it.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use super::{NetnsCookie, NetnsFile, enter};

/// Where a namespace was found, and which one it was. Keeps nothing alive.
#[derive(Clone, Debug)]
pub struct Location {
    /// An nsfs file, when it was opened.
    pub path: PathBuf,
    /// What it was.
    pub file: NetnsFile,
    /// Of that namespace.
    pub cookie: NetnsCookie,
}

impl Location {
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
        let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(&self.path)?;
        // Not setns(2) of something else: its error would say nothing.
        if NetnsFile::of(&file)? == self.file { Ok(file) } else { Err(self.gone()) }
    }

    fn gone(&self) -> io::Error {
        let what = format!("`{}` is not the namespace any more that it was", self.path.display());
        io::Error::new(io::ErrorKind::NotFound, what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_namespace_under_the_same_path_is_not_entered() {
        let path = PathBuf::from("/proc/self/ns/net");
        let file = NetnsFile::of(File::open(&path).unwrap()).unwrap();
        let cookie = NetnsCookie::here().unwrap();
        let here = Location { path, file, cookie };
        let is_gone =
            |location: &Location| location.enter(|| Ok(())).unwrap_err().kind() == io::ErrorKind::NotFound;
        assert!(is_gone(&Location { file: NetnsFile { inode: 1, ..file }, ..here.clone() }));
        assert!(is_gone(&Location { path: "/nonexistent".into(), ..here.clone() }));
        assert!(is_gone(&Location { path: "/dev/null".into(), ..here }));
    }
}
