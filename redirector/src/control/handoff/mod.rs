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

/// Where a daemon with this control socket hands listeners off: beside `control.sock` at `handoff.sock`, beside `X.sock` at
/// `X.handoff.sock`, so that several daemons can have their sockets in one directory.
#[must_use]
pub fn handoff_path(control: &Path) -> PathBuf {
    let name = control.file_name().unwrap_or_default();
    if name == "control.sock" {
        return control.with_file_name("handoff.sock");
    }
    let mut own = Path::new(name).with_extension("");
    if control.extension().is_none_or(|extension| extension != "sock") {
        own = name.into();
    }
    let mut own = own.into_os_string();
    own.push(".handoff.sock");
    control.with_file_name(own)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_control_socket_has_a_second_one_of_its_own() {
        for (control, expected) in [
            ("/run/redirector/control.sock", "/run/redirector/handoff.sock"),
            ("/run/redirector/test.sock", "/run/redirector/test.handoff.sock"),
            ("/run/redirector/a.b.sock", "/run/redirector/a.b.handoff.sock"),
            ("/run/redirector/test", "/run/redirector/test.handoff.sock"),
            ("/run/redirector/test.1", "/run/redirector/test.1.handoff.sock"),
            ("handoff.sock", "handoff.handoff.sock"),
        ] {
            assert_eq!(handoff_path(Path::new(control)), Path::new(expected), "{control}");
        }
    }
}
