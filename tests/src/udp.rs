//! Datagrams, sent and received one at a time.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
};

use crate::{HANG, netns::Netns};

/// A socket of a namespace, bound to an address there.
///
/// # Panics
///
/// When it cannot be made.
#[track_caller]
#[must_use]
pub fn bound(netns: &Netns, address: SocketAddr) -> UdpSocket {
    let socket = netns.enter(|| UdpSocket::bind(address)).expect("bind");
    socket.set_read_timeout(Some(HANG)).expect("SO_RCVTIMEO");
    socket
}

/// A client that takes answers, and errors, from this address only.
///
/// # Panics
///
/// When it cannot be made.
#[track_caller]
#[must_use]
pub fn client(from: &Netns, to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = bound(from, any.parse().expect("an address"));
    socket.connect(to).expect("connect");
    socket
}

/// Sends a text and has it sent back by a server.
///
/// # Panics
///
/// When something else arrives, or nothing for as long as a test may hang.
#[track_caller]
pub fn exchange(client: &UdpSocket, server: &UdpSocket, text: &str) {
    client.send(text.as_bytes()).expect("send");
    let (got, from) = receive(server);
    assert_eq!(got, text, "at the server");
    server.send_to(got.as_bytes(), from).expect("send back");
    assert_eq!(receive(client).0, text, "at the client");
}

/// The next datagram, and where it comes from.
///
/// # Panics
///
/// When none comes for as long as a test may hang.
#[track_caller]
#[must_use]
pub fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).expect("a datagram");
    (String::from_utf8_lossy(&buffer[..length]).into_owned(), from)
}

/// Sends a text, and gives what the client hears of it first: an error.
///
/// # Panics
///
/// When it hears something else.
#[track_caller]
pub fn assert_refused(client: &UdpSocket) {
    client.send(b"refused?").expect("send");
    let refused = client.recv(&mut [0; 16]).map_err(|error: io::Error| error.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused));
}
