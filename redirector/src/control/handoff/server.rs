//! The giving half.

use std::{
    future::Future,
    io,
    mem::ManuallyDrop,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    sync::Arc,
    time::Duration,
};

use nix::{
    sys::socket::{MsgFlags, SockFlag, accept4, getsockopt, recv, sockopt::PeerCredentials},
    unistd::geteuid,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc::UnboundedReceiver, oneshot},
};

use super::{LeaseNews, LeaseRequest, Leased, MAX_MESSAGE, Notice, send_with_fds};
use crate::{
    control::{Caller, Code, Error, ErrorBody, SCHEMA},
    sys::{
        self,
        aside::{self, Running, Threads, is_there, let_go},
        blocking::blocking,
        socket::{Received, receive_with_fds},
    },
};

/// The process that gets listeners.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// As for every request.
    pub(crate) caller: Caller,
    /// Readable when it has ended.
    pub(crate) pidfd: OwnedFd,
    /// What came with the request.
    pub(crate) enclosed: Enclosed,
}

/// What came with a request. Of files that others have, this process has none but what a request can need.
#[derive(Debug)]
pub(crate) enum Enclosed {
    /// No fd.
    Nothing,
    /// One fd that asks about listen(2).
    Asked(OwnedFd),
    /// Anything else.
    Other,
}

/// The answer to a request: a lease with its listeners.
#[derive(Debug)]
pub(crate) struct HandedOff {
    /// The document.
    pub(crate) leased: Leased,
    /// In the order of the document.
    pub(crate) listeners: Vec<OwnedFd>,
    /// Is told when the receiver has its listeners. Where it is dropped before, the lease is undone.
    pub(crate) delivered: oneshot::Sender<()>,
    /// What the receiver wants to be told from then on, until the lease is over.
    pub(crate) news: Option<UnboundedReceiver<LeaseNews>>,
}

/// Programs that are connected at once; more wait in the socket's queue.
const CONNECTED: usize = 256;

/// Requests that are worked on at once. Programs that are connected and do not ask take no place.
const AT_ONCE: usize = 32;

/// The longest that a connected program may take to ask.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks whether a thread has ended: nothing tells.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// Threads that cannot end, for the files that they have received. With as many, no more programs are let in.
const STUCK: usize = 64;

/// Serves for ever. `lease` makes listeners, and puts their rule into force.
///
/// # Errors
///
/// As accept(2).
pub(crate) async fn serve_handoff<F>(
    listener: OwnedFd,
    lease: impl Fn(Receiver, LeaseRequest) -> F + Send + Sync + 'static,
) -> io::Result<()>
where
    F: Future<Output = Result<HandedOff, Error>> + Send,
{
    let lease = Arc::new(lease);
    let listener = sys::async_fd(listener, Interest::READABLE)?;
    let seats = Arc::new(Semaphore::new(CONNECTED));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let threads = Arc::<Threads>::default();
    loop {
        while threads.left() >= STUCK {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        let seat = Arc::clone(&seats).acquire_owned().await.map_err(io::Error::other)?;
        match accept(&listener).await {
            Ok(connection) => {
                let (lease, places, threads) =
                    (Arc::clone(&lease), Arc::clone(&places), Arc::clone(&threads));
                tokio::spawn(async move {
                    if let Err(error) = serve_one(connection, &*lease, seat, (&places, &threads)).await {
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

async fn serve_one<F: Future<Output = Result<HandedOff, Error>>>(
    connection: OwnedFd,
    lease: impl Fn(Receiver, LeaseRequest) -> F,
    seat: OwnedSemaphorePermit,
    (places, threads): (&Semaphore, &Threads),
) -> io::Result<()> {
    let connection = sys::async_fd(connection, Interest::READABLE | Interest::WRITABLE)?;
    let served = match answer_one(&connection, lease, places, threads).await {
        Ok(Some(news)) => {
            // There are as many of these as there are leases.
            drop(seat);
            tell(&connection, news).await
        }
        served => served.map(drop),
    };
    // There may be messages with fds in it that nobody has received.
    let_go(vec![connection.into_inner()]);
    served
}

async fn answer_one<F: Future<Output = Result<HandedOff, Error>>>(
    connection: &AsyncFd<OwnedFd>,
    lease: impl Fn(Receiver, LeaseRequest) -> F,
    places: &Semaphore,
    threads: &Threads,
) -> io::Result<Option<UnboundedReceiver<LeaseNews>>> {
    let credentials = getsockopt(connection.get_ref(), PeerCredentials)?;
    // Before Linux 6.5 there is none of a process in another PID namespace.
    let pidfd = sys::socket::peer_pidfd(connection.get_ref());
    let Ok(message) = tokio::time::timeout(PATIENCE, receive(connection, threads)).await else {
        return Ok(None);
    };
    let (message, enclosed) = message?;
    if message.is_empty() {
        return Ok(None);
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
                Ok(pidfd) => lease(Receiver { caller, pidfd, enclosed }, request).await,
                Err(error) => {
                    let why = format!("the program cannot be seen from the daemon's PID namespace: {error}");
                    Err(Error::new(Code::Failed, why))
                }
            },
            Err(error) => Err(Error::new(Code::Usage, format!("request: {error}"))),
        }
    };
    match answer {
        Ok(HandedOff { leased, listeners, delivered, news }) => {
            let document = serde_json::to_vec(&leased)?;
            send(connection, &document, &listeners).await?;
            // The other end waits for it.
            let _told: Result<(), ()> = delivered.send(());
            // Before the connection, whose end tells the receiver that nobody else has them.
            close(listeners).await;
            Ok(news)
        }
        Err(error) => {
            send(connection, &serde_json::to_vec(&ErrorBody::from(error))?, &[]).await?;
            Ok(None)
        }
    }
}

/// Sends what comes, until nothing more does or nobody is there to read it.
async fn tell(connection: &AsyncFd<OwnedFd>, mut news: UnboundedReceiver<LeaseNews>) -> io::Result<()> {
    let telling = async {
        let mut next = Some(LeaseNews::Delivered);
        while let Some(news_now) = next {
            let notice = Notice { schema: SCHEMA, news: news_now };
            send(connection, &serde_json::to_vec(&notice)?, &[]).await?;
            next = news.recv().await;
        }
        Ok(())
    };
    tokio::select! {
        told = telling => told,
        ended = until_gone(connection) => ended,
    }
}

/// Waits until a program that has nothing more to say ends its connection, or says something.
async fn until_gone(connection: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = connection.readable().await?;
        let peek =
            |connection: &AsyncFd<OwnedFd>| Ok(recv(connection.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK)?);
        match ready.try_io(peek) {
            Ok(peeked) => return peeked.map(drop),
            Err(_would_block) => {}
        }
    }
}

/// Closes listeners that the receiver has, and may have made of what it likes. Waits until that is done, but not for ever.
async fn close(fds: Vec<OwnedFd>) {
    let Some(thread) = let_go(fds) else { return };
    let is_done = async {
        while is_there(thread) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    drop(tokio::time::timeout(PATIENCE, is_done).await);
}

/// Receives a request, and the files that came with it on a thread that has nothing else: whoever has had them decides how
/// long it takes to close them.
async fn receive(connection: &AsyncFd<OwnedFd>, threads: &Threads) -> io::Result<(Vec<u8>, Enclosed)> {
    loop {
        let mut ready = connection.readable().await?;
        let (given, back) = UnixDatagram::pair()?;
        let files = [connection.as_fd(), back.as_fd()];
        let Running { thread, result } = aside::run(&files, |_, files| receive_aside(&files[0], &files[1]))?;
        threads.add(thread);
        match blocking(move || result.recv_timeout(PATIENCE)).await?.map_err(io::Error::other)?? {
            Some((message, Came::Nothing)) => return Ok((message, Enclosed::Nothing)),
            Some((message, Came::Other)) => return Ok((message, Enclosed::Other)),
            Some((message, Came::Asked)) => {
                let fd = receive_with_fds(&given, &mut [0])?.fds.pop();
                return Ok((message, fd.map_or(Enclosed::Other, Enclosed::Asked)));
            }
            None => ready.clear_ready(),
        }
    }
}

/// As [`Enclosed`], which is on another thread then.
enum Came {
    Nothing,
    Asked,
    Other,
}

/// Receives one message. `None`: there is none. Gives an fd back by which it is asked about listen(2). What else came is
/// released when this thread ends.
fn receive_aside(connection: &OwnedFd, back: &OwnedFd) -> io::Result<Option<(Vec<u8>, Came)>> {
    let mut message = vec![0; MAX_MESSAGE];
    let Received { length, fds, is_cut } = match receive_with_fds(connection, &mut message) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        received => received?,
    };
    let fds = ManuallyDrop::new(fds);
    if is_cut {
        // Nothing as long as this is a request; what is parsed says so.
        return Ok(Some((b"longer than a request can be".to_vec(), Came::Other)));
    }
    message.truncate(length);
    let came = match &fds[..] {
        [] => Came::Nothing,
        [fd] if sys::seccomp::is_asked(fd) => {
            send_with_fds(back, b"x", &[fd.as_fd()])?;
            Came::Asked
        }
        _ => Came::Other,
    };
    Ok(Some((message, came)))
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
