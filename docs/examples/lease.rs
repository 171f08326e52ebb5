//! Asks redirector for the listeners of a namespace.
//!
//! Crates: `rustix` (feature `net`), `serde_json`, `socket2` (feature `all`).

use std::{
    io::{self, Error, IoSliceMut},
    mem::MaybeUninit,
    net::TcpListener,
    path::Path,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

const LONGEST_MESSAGE: usize = 64 * 1024;

/// Sends a request, as `{"target": "netns:web", "match": ["tcp:80"]}`, to `handoff.sock`. Gives the answer and the
/// listeners in its order, IPv4 first. The rule is in force until this process ends.
///
/// # Errors
///
/// As the system calls; what the daemon refuses is [`io::ErrorKind::Other`] with its message.
pub(crate) fn lease(handoff: &Path, request: &Value) -> io::Result<(Value, Vec<TcpListener>)> {
    let connection = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    connection.connect(&SockAddr::unix(handoff)?)?;
    // One message each way: it is sent as a whole or not at all.
    connection.send(request.to_string().as_bytes())?;

    let mut message = vec![0; LONGEST_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut message)];
    let received = recvmsg(&connection, parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let listeners = ancillary
        .drain()
        .filter_map(|part| match part {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .map(TcpListener::from)
        .collect();

    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let answer: Value = serde_json::from_slice(&message[..received.bytes])?;
    match answer.pointer("/error/message").and_then(Value::as_str) {
        Some(why) => Err(Error::other(why.to_owned())),
        None => Ok((answer, listeners)),
    }
}
