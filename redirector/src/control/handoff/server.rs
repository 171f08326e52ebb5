//! The giving half.

use std::{
    future::Future,
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::socket::{SockFlag, accept4, getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::Semaphore,
};

use super::{LeaseRequest, Leased, MAX_MESSAGE, send_with_fds};
use crate::{
    control::{Caller, Code, Error, ErrorBody},
    sys::{
        self,
        aside::{Foreign, let_go},
    },
};

/// The process that gets listeners.
#[derive(Debug)]
pub struct Receiver {
    /// As for every request.
    pub caller: Caller,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// What came with the request.
    pub enclosed: Foreign,
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

/// Programs that are connected at once; more wait in the socket's queue.
const CONNECTED: usize = 256;

/// Requests that are worked on at once. Programs that are connected and do not ask take no place.
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
    let seats = Arc::new(Semaphore::new(CONNECTED));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let seat = Arc::clone(&seats).acquire_owned().await.map_err(io::Error::other)?;
        match accept(&listener).await {
            Ok(connection) => {
                let (leases, places) = (Arc::clone(&leases), Arc::clone(&places));
                tokio::spawn(async move {
                    let _seat = seat;
                    if let Err(error) = serve_one(connection, leases, &places).await {
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

async fn serve_one<L: Leases>(connection: OwnedFd, leases: Arc<L>, places: &Semaphore) -> io::Result<()> {
    let connection = sys::async_fd(connection, Interest::READABLE | Interest::WRITABLE)?;
    let served = answer_one(&connection, leases, places).await;
    // There may be messages with fds in it that nobody has received.
    let_go(vec![connection.into_inner()]);
    served
}

async fn answer_one<L: Leases>(
    connection: &AsyncFd<OwnedFd>,
    leases: Arc<L>,
    places: &Semaphore,
) -> io::Result<()> {
    let credentials = getsockopt(connection.get_ref(), PeerCredentials)?;
    // Before Linux 6.5 there is none of a process in another PID namespace.
    let pidfd = sys::socket::peer_pidfd(connection.get_ref());
    let Ok(message) = tokio::time::timeout(PATIENCE, receive(connection)).await else {
        return Ok(());
    };
    let (message, enclosed) = message?;
    if message.is_empty() {
        return Ok(());
    }
    let _place = places.acquire().await.map_err(io::Error::other)?;
    let uid = credentials.uid();
    let caller = Caller { pid: Some(credentials.pid()).filter(|pid| *pid > 0), uid: Some(uid) };
    // The mode of the socket file says the same; a file can be changed.
    let answer = if uid != 0 && uid != geteuid().as_raw() {
        Err(Error::new(Code::Failed, format!("user {uid} may not have listeners")))
    } else {
        match serde_json::from_slice::<LeaseRequest>(&message) {
            Ok(request) => match pidfd {
                Ok(pidfd) => leases.lease(Receiver { caller, pidfd, enclosed }, request).await,
                Err(error) => {
                    let why = format!("the program cannot be seen from the daemon's PID namespace: {error}");
                    Err(Error::new(Code::Failed, why))
                }
            },
            Err(error) => Err(Error::new(Code::Usage, format!("request: {error}"))),
        }
    };
    match answer {
        Ok((leased, fds, keeper)) => {
            let document = serde_json::to_vec(&leased)?;
            send(connection, &document, &fds).await?;
            // Before the connection, whose end tells the receiver that nobody else has them.
            drop(fds);
            keeper.delivered();
            Ok(())
        }
        Err(error) => send(connection, &serde_json::to_vec(&ErrorBody::from(error))?, &[]).await,
    }
}

async fn receive(connection: &AsyncFd<OwnedFd>) -> io::Result<(Vec<u8>, Foreign)> {
    let mut message = vec![0; MAX_MESSAGE];
    loop {
        let mut ready = connection.readable().await?;
        let received =
            ready.try_io(|connection| sys::socket::receive_with_fds(connection.get_ref(), &mut message));
        match received {
            Ok(Ok((length, enclosed))) => {
                message.truncate(length);
                return Ok((message, enclosed));
            }
            // Nothing as long as this is a request; what is parsed says so.
            Ok(Err(error)) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                return Ok((b"longer than a request can be".to_vec(), Foreign::default()));
            }
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}

async fn send(connection: &AsyncFd<OwnedFd>, document: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let fds: Vec<_> = fds.iter().map(OwnedFd::as_fd).collect();
    loop {
        let mut ready = connection.writable().await?;
        let sent = ready.try_io(|connection| send_with_fds(connection.get_ref(), document, &fds));
        match sent {
            Ok(result) => return result,
            Err(_would_block) => {}
        }
    }
}
