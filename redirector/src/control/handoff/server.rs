//! The giving half.

use std::{
    future::Future,
    io::{self, IoSlice},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::socket::{
        ControlMessage, MsgFlags, SockFlag, UnixAddr, accept4, getsockopt, recv, sendmsg,
        sockopt::PeerCredentials,
    },
    unistd::geteuid,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Semaphore,
};

use super::{LeaseRequest, Leased, MAX_MESSAGE};
use crate::{
    control::{Caller, Code, Error, ErrorBody, ErrorDetail, SCHEMA},
    sys,
};

/// The process that gets listeners.
#[derive(Debug)]
pub struct Receiver {
    /// As for every request.
    pub caller: Caller,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Keeps a lease that has been delivered; dropped before that, the lease is undone.
pub trait LeaseKeeper: Send {
    /// The receiver has its listeners.
    fn delivered(self);
}

/// Who makes leases.
pub trait Leases: Send + Sync + 'static {
    /// Of one lease.
    type Keeper: LeaseKeeper;

    /// Makes the listeners and puts the rule into force.
    fn lease(
        self: Arc<Self>,
        receiver: Receiver,
        request: LeaseRequest,
    ) -> impl Future<Output = Result<(Leased, Vec<OwnedFd>, Self::Keeper), Error>> + Send;
}

/// Requests that are worked on at once; more wait in the socket's queue.
const AT_ONCE: usize = 32;

/// The longest that a connected program may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

/// Serves for ever.
///
/// # Errors
///
/// As accept(2).
pub async fn serve_handoff<L: Leases>(listener: OwnedFd, leases: Arc<L>) -> io::Result<()> {
    let listener = sys::async_fd(listener, Interest::READABLE)?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        match accept(&listener).await {
            Ok(connection) => {
                let leases = Arc::clone(&leases);
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = serve_one(connection, leases).await {
                        tracing::debug!(%error, "hand-off connection");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the hand-off socket; trying again in a moment");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<OwnedFd> {
    loop {
        let mut ready = listener.readable().await?;
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        match ready.try_io(|listener| Ok(accept4(listener.as_raw_fd(), flags)?)) {
            Ok(accepted) => return accepted.map(|fd| sys::owned(fd.into())),
            Err(_would_block) => {}
        }
    }
}

async fn serve_one<L: Leases>(connection: OwnedFd, leases: Arc<L>) -> io::Result<()> {
    let credentials = getsockopt(&connection, PeerCredentials)?;
    let pidfd = sys::socket::peer_pidfd(&connection)?;
    let connection = sys::async_fd(connection, Interest::READABLE | Interest::WRITABLE)?;
    let Ok(message) = tokio::time::timeout(PATIENCE, receive(&connection)).await else {
        return Ok(());
    };
    let message = message?;
    if message.is_empty() {
        return Ok(());
    }
    let uid = credentials.uid();
    let caller = Caller { pid: Some(credentials.pid()).filter(|pid| *pid > 0), uid: Some(uid) };
    // The mode of the socket file says the same; a file can be changed.
    let answer = if uid != 0 && uid != geteuid().as_raw() {
        Err(Error::new(Code::Failed, format!("user {uid} may not have listeners")))
    } else {
        match serde_json::from_slice::<LeaseRequest>(&message) {
            Ok(request) => leases.lease(Receiver { caller, pidfd }, request).await,
            Err(error) => Err(Error::new(Code::Usage, format!("request: {error}"))),
        }
    };
    match answer {
        Ok((leased, fds, keeper)) => {
            let document = serde_json::to_vec(&leased)?;
            send(&connection, &document, &fds).await?;
            // Before the connection, whose end tells the receiver that nobody else has them.
            drop(fds);
            keeper.delivered();
            Ok(())
        }
        Err(Error { code, message, hint }) => {
            let body = ErrorBody { schema: SCHEMA, error: ErrorDetail { code, message, hint } };
            send(&connection, &serde_json::to_vec(&body)?, &[]).await
        }
    }
}

async fn receive(connection: &AsyncFd<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        let mut ready = connection.readable().await?;
        // With MSG_TRUNC the result is the length that it had. Fds that come with it are closed by the kernel.
        let received =
            ready.try_io(|connection| Ok(recv(connection.as_raw_fd(), &mut message, MsgFlags::MSG_TRUNC)?));
        match received {
            Ok(length) => {
                let length = length?;
                if length > message.len() {
                    // Nothing as long as this is a request; what is parsed says so.
                    return Ok(b"longer than a request can be".to_vec());
                }
                message.truncate(length);
                return Ok(message);
            }
            Err(_would_block) => {}
        }
    }
}

async fn send(connection: &AsyncFd<OwnedFd>, document: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let numbers: Vec<_> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let rights = if numbers.is_empty() { &rights[..0] } else { &rights[..] };
    loop {
        let mut ready = connection.writable().await?;
        let sent = ready.try_io(|connection| {
            let parts = [IoSlice::new(document)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            Ok(sendmsg::<UnixAddr>(connection.as_raw_fd(), &parts, rights, flags, None)?)
        });
        match sent {
            Ok(result) => return result.map(drop),
            Err(_would_block) => {}
        }
    }
}
