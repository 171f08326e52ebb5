//! Directories of an `exec` that was its own daemon (`cli::exec::alone`).

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::geteuid;
use socket2::Type;

use super::cleaned::{Cleaned, Kept, Removed};
use crate::{
    cli::{exec::DIRECTORY_PREFIX, exit::Failure},
    control::{Stale, remove_stale},
};

/// What an `exec` makes in its directory.
const SOCKET: &str = "handoff.sock";
const LOCK: &str = "handoff.sock.lock";

/// Why a directory is kept.
const IN_USE: &str = "a running `exec` uses it";
const NEW: &str = "it is empty and less than a minute old: an `exec` may be starting";
const FILLED: &str = "there are files in it that redirector did not make";

/// From making the directory to binding the socket an `exec` takes milliseconds.
const STARTING: Duration = Duration::from_secs(60);

/// Removes those below `parent` whose `exec` is dead.
pub(super) fn remove(parent: &Path, cleaned: &mut Cleaned) -> Result<(), Failure> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(|error| failed("read", parent, &error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| failed("read", parent, &error))?;
        if has_our_name(&entry.file_name()) {
            remove_one(entry.path(), cleaned)?;
        }
    }
    Ok(())
}

fn failed(call: &str, path: &Path, error: &io::Error) -> Failure {
    let text = format!("{call} `{}`: {error}", path.display());
    Failure::failed(&io::Error::new(error.kind(), text))
}

/// Our prefix and what `tempfile` appends.
fn has_our_name(name: &OsStr) -> bool {
    let rest = name.to_str().and_then(|name| name.strip_prefix(DIRECTORY_PREFIX));
    rest.is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn remove_one(path: PathBuf, cleaned: &mut Cleaned) -> Result<(), Failure> {
    let Some(directory) = open_own(&path).map_err(|error| failed("open", &path, &error))? else {
        return Ok(());
    };
    // By its fd: whoever may write to the parent may put something else in its place meanwhile.
    let inside = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    match remove_stale(&inside.join(SOCKET), Type::SEQPACKET).map_err(|error| Failure::failed(&error))? {
        Stale::Removed => {}
        Stale::Served => {
            cleaned.kept.push(Kept { path, why: IN_USE });
            return Ok(());
        }
        Stale::Foreign => {
            cleaned.kept.push(Kept { path, why: FILLED });
            return Ok(());
        }
        Stale::Missing if is_new(&directory) => {
            cleaned.kept.push(Kept { path, why: NEW });
            return Ok(());
        }
        Stale::Missing => {}
    }
    match fs::remove_file(inside.join(LOCK)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result.map_err(|error| failed("remove the lock file in", &path, &error))?,
    }
    match fs::remove_dir(&path) {
        Ok(()) => cleaned.removed.push(Removed { path, what: "directory" }),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
            cleaned.kept.push(Kept { path, why: FILLED });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("remove", &path, &error)),
    }
    Ok(())
}

/// A directory, no symbolic link, of this user and for nobody else.
fn open_own(path: &Path) -> io::Result<Option<File>> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let directory = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        // Another user's, something else, or gone by now.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EACCES | libc::ELOOP | libc::ENOTDIR | libc::ENOENT)
            ) =>
        {
            return Ok(None);
        }
        result => result?,
    };
    let metadata = directory.metadata()?;
    let is_own = metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o7777 == 0o700;
    Ok(is_own.then_some(directory))
}

fn is_new(directory: &File) -> bool {
    let age = directory.metadata().and_then(|metadata| metadata.modified()).ok().map(|time| time.elapsed());
    // A time in the future is no reason to remove it.
    !age.is_some_and(|age| age.is_ok_and(|age| age > STARTING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_exec_gives_are_ours() {
        for (name, expected) in [
            ("redirector-exec-a1B2c3", true),
            ("redirector-exec-", false),
            ("redirector-exec-a1B2c34", false),
            ("redirector-exec-a1B2c.", false),
            ("redirector-a1B2c3", false),
        ] {
            assert_eq!(has_our_name(OsStr::new(name)), expected, "{name}");
        }
    }
}
