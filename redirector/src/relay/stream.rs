//! One leg: TCP, or a Unix stream socket.

use std::{
    io,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd},
};

use socket2::SockRef;
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

use super::Tcp;

/// What a stream has left undone when it is closed or reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Bytes that its peer has not acknowledged, a FIN as one more.
    pub unacknowledged: u32,
    /// Bytes that its peer knows to have arrived, and that nobody has read.
    pub unread: u32,
}

/// A connected stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(Tcp),
    /// `AF_UNIX`, `SOCK_STREAM`.
    Unix(UnixStream),
}

impl Stream {
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Ready when the socket has an error: its peer has reset it, or keep-alive gave it up.
    pub(super) async fn failed(&self) {
        let ready = match self {
            Self::Tcp(stream) => stream.ready(Interest::ERROR).await,
            Self::Unix(stream) => stream.ready(Interest::ERROR).await,
        };
        // An error is that the runtime is shutting down: then nobody waits for this any more.
        drop(ready);
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Bytes that a TCP peer has not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> u32 {
        match self {
            Self::Tcp(stream) => crate::sys::socket::unacknowledged(stream.as_fd()).unwrap_or(0),
            Self::Unix(_) => 0,
        }
    }

    /// Bytes that its peer has sent, that the kernel has taken, and that nobody has read.
    pub fn unread(&self) -> u32 {
        crate::sys::socket::unread(self).unwrap_or(0)
    }

    /// What closing or resetting it now leaves undone.
    #[must_use]
    pub fn left(&self) -> Left {
        Left { unacknowledged: self.unacknowledged(), unread: self.unread() }
    }

    /// Whether a FIN was sent: none is to a peer that has reset the connection meanwhile. Reading or writing says so too.
    pub(super) fn shutdown_write(&self) -> io::Result<bool> {
        if let Self::Tcp(stream) = self {
            stream.before_fin();
        }
        match SockRef::from(self).shutdown(Shutdown::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            result => result.map(|()| true),
        }
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream.into())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
