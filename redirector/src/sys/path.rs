//! A file that is held without being opened.

use std::{fs::File, io, path::Path};

use nix::{
    fcntl::{OFlag, open},
    sys::stat::Mode,
};

/// Holds what a path leads to, whatever that is, without opening it (`O_PATH`): nothing of it is touched, and
/// `/proc/self/fd` leads to the same file for as long as it is held. Not by `OpenOptions::custom_flags`: it leaves out what is in
/// `O_ACCMODE`, and for musl that has `O_PATH` in it, so that a socket could not be held (`ENXIO`) and a device would be opened.
///
/// # Errors
///
/// As open(2).
pub fn hold(path: impl AsRef<Path>, flags: OFlag) -> io::Result<File> {
    let held = open(path.as_ref(), OFlag::O_PATH | OFlag::O_CLOEXEC | flags, Mode::empty())?;
    Ok(held.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileTypeExt as _;

    use super::*;

    #[test]
    fn a_socket_can_be_held() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(hold(&path, OFlag::empty()).unwrap().metadata().unwrap().file_type().is_socket());
        assert!(hold(&path, OFlag::O_DIRECTORY).is_err());
    }
}
