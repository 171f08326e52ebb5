//! A TCP leg, and what it holds.

use std::{fmt, ops::Deref};

use tokio::net::TcpStream;

/// What a stream holds for as long as it is open.
pub trait Hold: fmt::Debug + Send + Sync {
    /// The stream's FIN goes out next.
    fn before_fin(&self, stream: &TcpStream);
}

/// A TCP stream.
#[derive(Debug)]
pub struct Tcp {
    /// Dropped before the socket is closed, as the order of the fields says.
    held: Option<Box<dyn Hold>>,
    stream: TcpStream,
}

impl Tcp {
    /// A stream that holds something. It is dropped before the socket is closed.
    #[must_use]
    pub fn holding(stream: TcpStream, held: Box<dyn Hold>) -> Self {
        Self { held: Some(held), stream }
    }

    pub(super) fn before_fin(&self) {
        if let Some(held) = &self.held {
            held.before_fin(&self.stream);
        }
    }
}

impl From<TcpStream> for Tcp {
    fn from(stream: TcpStream) -> Self {
        Self { held: None, stream }
    }
}

impl Deref for Tcp {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.stream
    }
}
