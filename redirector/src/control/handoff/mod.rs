//! The hand-off socket: `handoff.sock` beside the control socket, by which a program asks for listeners.
//!
//! `SOCK_SEQPACKET`, one JSON document for each message. The request is a [`LeaseRequest`] with what it needs as
//! `SCM_RIGHTS`; the answer is a
//! [`Leased`] with its listeners as `SCM_RIGHTS`, in its order, or an [`super::ErrorBody`] without any. The
//! lease belongs to the process that asked (not to its connection): when that ends, so does the rule. The daemon
//! ends the connection after it has closed its own copies of the listeners; with `notices` it sends a [`Notice`] then, and more
//! later.
//! Allowed are uid 0 and the daemon's own.

mod client;
mod server;
mod types;

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

use crate::sys::inject::point;

pub(crate) use client::receive_notice;
pub use client::{Handed, Handoff, HandoffError};
pub(crate) use server::{Enclosed, HandedOff, Receiver, serve_handoff};
pub use types::{ACCEPT_WITHIN, LISTEN_WITHIN, LeaseNews, LeaseRequest, Leased, LeasedListener, Notice};

/// Where a daemon with this control socket hands listeners off.
#[must_use]
pub fn handoff_path(control: &Path) -> PathBuf {
    control.with_file_name("handoff.sock")
}

/// The longest message.
const MAX_MESSAGE: usize = 64 * 1024;

/// One message, with fds.
pub(crate) fn send_with_fds(socket: impl AsFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    let parts = [IoSlice::new(message)];
    point("sendmsg")?;
    sendmsg::<UnixAddr>(socket.as_fd().as_raw_fd(), &parts, rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}
