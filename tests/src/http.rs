//! The API as a program without our client would use it: HTTP/1.1 by hand.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
};

use serde_json::Value;

use crate::HANG;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The document.
    pub body: Value,
}

/// `GET PATH`.
#[track_caller]
#[must_use]
pub fn get(socket: &Path, path: &str) -> Answer {
    exchange(socket, &format!("GET {path} HTTP/1.1\r\nHost: redirector\r\nConnection: close\r\n\r\n"))
}

/// `GET PATH`, as it is answered, with status 200.
#[track_caller]
#[must_use]
pub fn text(socket: &Path, path: &str) -> String {
    let text = said(socket, &format!("GET {path} HTTP/1.1\r\nHost: redirector\r\nConnection: close\r\n\r\n"));
    assert!(text.starts_with("HTTP/1.1 200 "), "{path}: {text}");
    text
}

/// `POST PATH` with a body.
#[track_caller]
#[must_use]
pub fn post(socket: &Path, path: &str, body: &str) -> Answer {
    let length = body.len();
    exchange(
        socket,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: redirector\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

/// Sends these bytes and reads one answer with a JSON body.
#[track_caller]
#[must_use]
pub fn exchange(socket: &Path, request: &str) -> Answer {
    let text = said(socket, request);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not HTTP: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status: {head:?}"));
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("not JSON: {error}: {text:?}"));
    Answer { status, body }
}

/// Sends these bytes: what is answered.
#[track_caller]
fn said(socket: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("connect to the control socket");
    stream.set_read_timeout(Some(HANG)).expect("SO_RCVTIMEO");
    stream.write_all(request.as_bytes()).expect("send a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read an answer");
    text
}
