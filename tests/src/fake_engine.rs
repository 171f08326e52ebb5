//! A container engine that answers what a test wants, at a socket of its API.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// An id that engines could give.
pub const ID: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// What is answered to a request.
#[derive(Debug)]
pub enum Answer {
    /// These bytes, and the end.
    Bytes(String),
    /// Nothing, ever.
    Silence,
    /// A stream of events, which [`Body`] says one by one.
    Events(Body),
}

/// The events that are said to whoever listens now. Before anybody does, and after, they are lost.
#[derive(Clone, Debug, Default)]
pub struct Body(Arc<Mutex<Option<UnixStream>>>);

impl Body {
    /// Says that something happened to the container `web`.
    pub fn say(&self, what: &str) {
        let event = format!(
            r#"{{"Type":"container","Action":"{what}","Actor":{{"ID":"{ID}","Attributes":{{"name":"web"}}}}}}"#
        );
        if let Some(stream) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // Who listened may have gone.
            drop(write!(stream, "{:x}\r\n{event}\r\n", event.len()));
        }
    }

    fn begin(&self, mut stream: UnixStream) {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        drop(stream.write_all(head.as_bytes()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }
}

/// Serves a socket by a function from the request's path. It ends with the process.
#[track_caller]
pub fn engine(socket: &Path, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).expect("bind the engine's socket");
    thread::spawn(move || {
        let mut silent = Vec::new();
        for connection in listener.incoming().map_while(Result::ok) {
            silent.extend(serve(connection, &answer));
        }
    });
}

fn serve(connection: UnixStream, answer: &impl Fn(&str) -> Answer) -> Option<UnixStream> {
    let mut reader = BufReader::new(connection);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match reader.read_line(&mut line) {
            Ok(0) | Err(_) => return None,
            Ok(_) if line == "\r\n" => break,
            Ok(_) => head.push(line),
        }
    }
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let mut connection = reader.into_inner();
    match answer(path) {
        Answer::Bytes(bytes) => {
            // The client may not want all of it.
            drop(connection.write_all(bytes.as_bytes()));
            None
        }
        Answer::Silence => Some(connection),
        Answer::Events(body) => {
            body.begin(connection);
            None
        }
    }
}

/// An answer of JSON, with this status.
#[must_use]
pub fn status(status: &str, body: &str) -> Answer {
    let length = body.len();
    Answer::Bytes(format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    ))
}

/// An answer of JSON.
#[must_use]
pub fn json(body: &str) -> Answer {
    status("200 OK", body)
}

/// What is said of the container `web` that runs as this process.
#[must_use]
pub fn inspected(pid: u32) -> String {
    format!(r#"{{"Id":"{ID}","Name":"/web","State":{{"Status":"running","Pid":{pid}}}}}"#)
}

/// An engine that knows the version, and this of every container: `ID` in it is [`ID`], `OURS` is the process of the
/// tests.
pub fn inspects(body: &str) -> impl Fn(&str) -> Answer + Send + Sync + 'static {
    // This process is in the host's namespace.
    let body = body.replace("ID", ID).replace("OURS", &std::process::id().to_string());
    move |path| if path.ends_with("/version") { version() } else { json(&body) }
}

/// What is said of the version.
#[must_use]
pub fn version() -> Answer {
    json(r#"{"ApiVersion":"1.41"}"#)
}
