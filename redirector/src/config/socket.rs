//! Where a program listens: the path of a Unix socket, which others write as a URL.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize as _, Deserializer, de::Error as _};

use super::ParseError;

/// Reads `/PATH`, or `unix:///PATH` as `$DOCKER_HOST` and `$CONTAINER_HOST` have it.
///
/// # Errors
///
/// Says what else it is.
pub fn socket_path(text: &OsStr) -> Result<PathBuf, ParseError> {
    let shown = text.to_string_lossy();
    let error = |why: &str| Err(ParseError(format!("socket `{}`: {why}", shown.escape_debug())));
    let bytes = text.as_bytes();
    let (path, is_url) = match bytes.strip_prefix(b"unix://").or_else(|| bytes.strip_prefix(b"unix:")) {
        Some(path) => (path, true),
        None => (bytes, false),
    };
    let path = Path::new(OsStr::from_bytes(path));
    if path.as_os_str().is_empty() {
        return error("the path is empty");
    }
    if path.as_os_str().as_bytes().starts_with(b"@") {
        return error("only a socket with a path is asked, not an abstract one");
    }
    if is_url && path.is_relative() {
        return error(&format!("the path is not absolute; did you mean `unix:///{}`?", path.display()));
    }
    if let Some((scheme, _)) = shown.split_once("://").filter(|_| !is_url)
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    {
        return error(&format!("`{scheme}` is not supported, only a Unix socket: `/PATH` or `unix:///PATH`"));
    }
    Ok(path.to_owned())
}

/// The same of a key of a file.
pub(super) fn from_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(deserializer)?;
    socket_path(OsStr::new(&text)).map(Some).map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_a_path_or_a_url() {
        for (text, expected) in [
            ("/run/docker.sock", "/run/docker.sock"),
            ("run/docker.sock", "run/docker.sock"),
            ("unix:///run/docker.sock", "/run/docker.sock"),
            ("unix:/run/docker.sock", "/run/docker.sock"),
            ("unix://run/docker.sock", "did you mean `unix:///run/docker.sock`?"),
            ("unix://", "the path is empty"),
            ("", "the path is empty"),
            ("@docker", "abstract"),
            ("unix:@docker", "abstract"),
            ("tcp://127.0.0.1:2375", "`tcp` is not supported"),
            ("ssh://user@host/run/podman.sock", "`ssh` is not supported"),
        ] {
            let shown = match socket_path(OsStr::new(text)) {
                Ok(path) => path.display().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(shown.contains(expected), "{text}: {shown}");
        }
    }
}
