//! A directory of one's own, removed afterwards.

use std::{
    env, fs,
    io::ErrorKind,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// A number that no other test of this machine uses together with our process id.
#[must_use]
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory that everybody can enter, under the system's temporary one.
#[derive(Debug)]
pub struct Dir(PathBuf);

impl Dir {
    /// Makes one.
    #[track_caller]
    #[must_use]
    pub fn new() -> Self {
        let path = loop {
            let path = env::temp_dir().join(format!("rdt-{}", unique()));
            match fs::create_dir(&path) {
                // Of a process that was killed and had our number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => {
                    made.unwrap_or_else(|error| panic!("make `{}`: {error}", path.display()));
                    break path;
                }
            }
        };
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .expect("set the mode of a new directory");
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A name in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Default for Dir {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("remove `{}`: {error}", self.0.display());
        }
    }
}
