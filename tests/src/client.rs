//! Clients: a conversation, and the short question who answers.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use socket2::{Domain, SockRef, Socket, Type};

use crate::{HANG, netns::Netns};

/// What a server says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// The server's name.
    pub server: String,
    /// The client, as the server sees it.
    pub peer: Option<SocketAddr>,
    /// The server's end.
    pub local: Option<SocketAddr>,
}

/// A connection to a server of [`crate::server`].
#[derive(Debug)]
pub struct Conversation(BufReader<TcpStream>);

impl Conversation {
    /// Connects from a namespace.
    ///
    /// # Errors
    ///
    /// As connect(2).
    #[track_caller]
    pub fn open(from: &Netns, to: SocketAddr) -> io::Result<Self> {
        from.enter(|| Self::open_here(to))
    }

    /// Connects from the namespace of this thread.
    ///
    /// # Errors
    ///
    /// As connect(2).
    pub fn open_here(to: SocketAddr) -> io::Result<Self> {
        Self::with(TcpStream::connect_timeout(&to, HANG)?)
    }

    /// On a connection that is there.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn with(stream: TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(HANG))?;
        stream.set_write_timeout(Some(HANG))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// Connects from an address and a port of the namespace of this thread.
    ///
    /// # Errors
    ///
    /// As bind(2), connect(2).
    pub fn open_at(source: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
        socket.connect_timeout(&to.into(), HANG)?;
        Self::with(socket.into())
    }

    /// Reads the server's first line.
    ///
    /// # Errors
    ///
    /// As read(2); `UnexpectedEof` when the connection was closed without one.
    pub fn greeting(&mut self) -> io::Result<Greeting> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let words: Vec<_> = line.trim_end().split(' ').collect();
        let &[server, peer, local] = &words[..] else {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, format!("greeting {line:?}")));
        };
        Ok(Greeting { server: server.to_owned(), peer: peer.parse().ok(), local: local.parse().ok() })
    }

    /// Says something and hears the same.
    ///
    /// # Errors
    ///
    /// As write(2) and read(2); `InvalidData` when it hears something else.
    pub fn echo(&mut self, text: &str) -> io::Result<()> {
        self.stream().write_all(text.as_bytes())?;
        let mut heard = vec![0; text.len()];
        self.0.read_exact(&mut heard)?;
        if heard == text.as_bytes() { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }

    /// Says that it is done, and hears that the server is.
    ///
    /// # Errors
    ///
    /// As read(2); `InvalidData` when the server has more to say.
    pub fn finish(mut self) -> io::Result<()> {
        self.stream().shutdown(Shutdown::Write)?;
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest)?;
        if rest.is_empty() { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }

    /// Closes with RST.
    pub fn reset(self) {
        SockRef::from(self.stream()).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    /// Everything until the server's FIN.
    ///
    /// # Errors
    ///
    /// As read(2).
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).map(|_| rest)
    }

    /// What is to be read, that which was read ahead included.
    pub fn reader(&mut self) -> impl io::Read {
        &mut self.0
    }

    /// The socket. Bytes that were read ahead are not in it any more.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        self.0.get_ref()
    }
}

/// A whole conversation from the namespace of this thread: greeting, an echo, end.
///
/// # Errors
///
/// The first thing that goes wrong.
pub fn visit_here(to: SocketAddr) -> io::Result<Greeting> {
    converse(Conversation::open_here(to)?)
}

fn converse(mut conversation: Conversation) -> io::Result<Greeting> {
    let greeting = conversation.greeting()?;
    conversation.echo("ping")?;
    conversation.finish()?;
    Ok(greeting)
}

/// As [`visit_here`], of a client that does not wait for the greeting.
fn ask_here(to: SocketAddr) -> io::Result<Greeting> {
    let mut conversation = Conversation::open_here(to)?;
    conversation.stream().write_all(b"ping")?;
    let greeting = conversation.greeting()?;
    let mut heard = [0; 4];
    conversation.reader().read_exact(&mut heard)?;
    conversation.finish()?;
    if &heard == b"ping" { Ok(greeting) } else { Err(ErrorKind::InvalidData.into()) }
}

/// A whole conversation from a namespace.
///
/// # Errors
///
/// The first thing that goes wrong.
#[track_caller]
pub fn visit(from: &Netns, to: SocketAddr) -> io::Result<Greeting> {
    from.enter(|| visit_here(to))
}

/// Tells threads to end when it is dropped: also when the test fails meanwhile, and would wait for them.
#[derive(Debug)]
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does something in as many threads of a namespace at once, and gives what each gave.
#[track_caller]
pub fn at_once<T: Send>(from: &Netns, threads: usize, run: impl Fn(usize) -> T + Send + Sync) -> Vec<T> {
    from.enter(|| {
        let run = &run;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        })
    })
}

/// Who answers: a server's name, or `refused`, `reset`, `closed`, `no route`, or another error.
#[track_caller]
pub fn answer(from: &Netns, to: SocketAddr) -> String {
    from.enter(|| answer_here(to))
}

/// As [`answer`], from the namespace of this thread.
#[must_use]
pub fn answer_here(to: SocketAddr) -> String {
    who(visit_here(to))
}

/// As [`answer`], of a client with this address and port.
#[track_caller]
pub fn answer_at(from: &Netns, source: SocketAddr, to: SocketAddr) -> String {
    from.enter(|| who(Conversation::open_at(source, to).and_then(converse)))
}

/// As [`answer_here`], for a client that speaks first.
#[must_use]
pub fn answer_to_a_question_here(to: SocketAddr) -> String {
    who(ask_here(to))
}

fn who(visit: io::Result<Greeting>) -> String {
    match visit {
        Ok(greeting) => greeting.server,
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused => "refused".to_owned(),
            ErrorKind::ConnectionReset => "reset".to_owned(),
            ErrorKind::UnexpectedEof => "closed".to_owned(),
            ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => "no route".to_owned(),
            _ => error.to_string(),
        },
    }
}
