//! Sockets made inside a namespace, by whoever is outside.

use std::{io, os::fd::AsFd};

use socket2::Socket;

use super::{BindError, cookies};
use crate::{
    netns::{NetnsCookie, enter},
    sys::SyscallError,
};

/// Why there are no sockets inside.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// The namespace cannot be entered.
    #[error(transparent)]
    Enter(#[from] io::Error),
    /// They cannot be made there.
    #[error(transparent)]
    Make(#[from] BindError),
    /// They cannot be asked where they are.
    #[error(transparent)]
    Ask(#[from] SyscallError),
    /// They are not where they should be.
    #[error("a socket came up in namespace {found} instead of {expected}")]
    Elsewhere {
        /// Where one is.
        found: NetnsCookie,
        /// Where it should be.
        expected: NetnsCookie,
    },
}

/// Sockets that `make` makes in this namespace (an nsfs fd) and in no other. Blocks.
///
/// # Errors
///
/// [`InsideError`]; nothing is left then.
pub fn make_inside<K: Send>(
    netns: impl AsFd,
    expected: NetnsCookie,
    make: impl FnOnce() -> Result<Vec<(K, Socket)>, BindError> + Send,
) -> Result<Vec<(K, Socket)>, InsideError> {
    let sockets = enter(netns, make)??;
    for (_, socket) in &sockets {
        // The kernel would take a socket of another namespace, and no handshake would ever complete.
        let (_, found) = cookies(socket.as_fd())?;
        if found != expected {
            return Err(InsideError::Elsewhere { found, expected });
        }
    }
    Ok(sockets)
}
