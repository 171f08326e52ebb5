//! The receiving half.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{LeaseNews, LeaseRequest, Leased, MAX_MESSAGE, Notice, send_with_fds};
use crate::{
    control::{Error, ErrorBody},
    sys::{self, socket::Received},
};

/// Why there are no listeners.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    /// Nobody answers on the socket.
    #[error("hand-off socket `{path}`: the daemon cannot be reached: {source}")]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It broke off in between.
    #[error("hand-off socket `{path}`: {call}: {source}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What failed.
        call: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The daemon says no.
    #[error(transparent)]
    Refused(Error),
}

/// The longest that an answer may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// What came of a request.
#[derive(Debug)]
pub struct Handed {
    /// The answer.
    pub leased: Leased,
    /// In the order of the answer.
    pub listeners: Vec<OwnedFd>,
    /// On which notices come, when the request has asked for them.
    pub connection: OwnedFd,
}

/// Waits for the next notice on the connection. `None` when there are no more.
///
/// # Errors
///
/// As recv(2), or when it is no notice.
pub(crate) fn receive_notice(connection: impl AsFd) -> io::Result<Option<LeaseNews>> {
    let mut message = vec![0; MAX_MESSAGE];
    let length = match recv(connection.as_fd().as_raw_fd(), &mut message, MsgFlags::empty()) {
        // The daemon has been killed.
        Err(nix::errno::Errno::ECONNRESET) | Ok(0) => return Ok(None),
        received => received?,
    };
    let notice: Notice = serde_json::from_slice(&message[..length])?;
    Ok(Some(notice.news))
}

/// A connection to a daemon's hand-off socket.
#[derive(Debug)]
pub struct Handoff {
    path: PathBuf,
    socket: Socket,
}

impl Handoff {
    /// Connects, and asks for nothing yet.
    ///
    /// # Errors
    ///
    /// [`HandoffError::Unreachable`] when nobody serves it.
    pub fn connect(path: &Path) -> Result<Self, HandoffError> {
        let unreachable = |source| HandoffError::Unreachable { path: path.to_owned(), source };
        let broken = |call| move |source| HandoffError::Broken { path: path.to_owned(), call, source };
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).map_err(broken("socket"))?;
        socket.connect(&SockAddr::unix(path).map_err(unreachable)?).map_err(unreachable)?;
        socket.set_read_timeout(Some(DEADLINE)).map_err(broken("setsockopt SO_RCVTIMEO"))?;
        Ok(Self { path: path.to_owned(), socket })
    }

    /// Asks for listeners. The rule is in force when they come, and until this process ends. `enclosed` is what
    /// the request needs (`listen_as`), or empty.
    ///
    /// # Errors
    ///
    /// [`HandoffError`].
    pub fn lease(self, request: &LeaseRequest, enclosed: &[BorrowedFd<'_>]) -> Result<Handed, HandoffError> {
        let Self { path, socket } = self;
        let broken = |call| {
            let path = path.clone();
            move |source| HandoffError::Broken { path, call, source }
        };
        let request =
            serde_json::to_vec(request).map_err(|error| broken("write the request")(error.into()))?;
        send_with_fds(&socket, &request, enclosed).map_err(broken("sendmsg"))?;
        let mut answer = vec![0; MAX_MESSAGE];
        let Received { length, fds, is_cut } =
            sys::socket::receive_with_fds(&socket, &mut answer).map_err(broken("recvmsg"))?;
        if is_cut {
            return Err(broken("recvmsg")(io::Error::from_raw_os_error(libc::EMSGSIZE)));
        }
        let answer = &answer[..length];
        if let Ok(ErrorBody { schema: _, error }) = serde_json::from_slice(answer) {
            return Err(HandoffError::Refused(error.into()));
        }
        let leased: Leased =
            serde_json::from_slice(answer).map_err(|error| broken("read the answer")(error.into()))?;
        if fds.len() != leased.listeners.len() {
            return Err(broken("read the answer")(io::Error::other("not as many fds as listeners")));
        }
        // The daemon ends the connection when it has closed its own copies, or tells: from then on they are ours alone.
        recv(socket.as_raw_fd(), &mut [0], MsgFlags::empty())
            .map_err(|errno| broken("wait for the end")(errno.into()))?;
        // Notices may come late.
        socket.set_read_timeout(None).map_err(broken("setsockopt SO_RCVTIMEO"))?;
        Ok(Handed { leased, listeners: fds, connection: socket.into() })
    }
}
