//! Netlink messages to the kernel, and the many messages by which it answers a dump.

use std::{io, ops::ControlFlow};

use netlink_packet_core::{
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// Sends one message to the kernel.
///
/// # Errors
///
/// As sendto(2).
pub(super) fn send(socket: &Socket, message: impl NetlinkSerializable, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).map(drop)
}

/// Messages of one dump that are read, whatever they say: whoever is steered decides how many there are.
const MOST: usize = 400_000;

/// The next datagram of the kernel. Whoever is in the namespace may send to our socket, too.
///
/// # Errors
///
/// As recvfrom(2).
pub(super) fn receive(socket: &Socket) -> io::Result<Vec<u8>> {
    /// From others that are passed over before there is an end to it.
    const OTHERS: usize = 1024;
    for _ in 0..OTHERS {
        let (datagram, sender) = socket.recv_from_full()?;
        if sender.port_number() == 0 {
            return Ok(datagram);
        }
    }
    Err(io::Error::other("somebody inside sends to our netlink socket all the time"))
}

/// Reads the answers of one dump to its end, or until `each` has enough of them. What is not read then is in the way of
/// another question by this socket.
///
/// # Errors
///
/// As recvfrom(2), and what the kernel answers instead.
pub(super) fn answers<I: NetlinkDeserializable>(
    socket: &Socket,
    mut each: impl FnMut(I) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut left = MOST;
    loop {
        let datagram = receive(socket)?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<I>::deserialize(rest).map_err(io::Error::other)?;
            let answer = match message.payload {
                // A dump that failed on the way has its errno there.
                NetlinkPayload::Done(done) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(answer) => Some(answer),
                _ => None,
            };
            left = left.saturating_sub(1);
            if answer.is_some_and(|answer| each(answer).is_break()) || left == 0 {
                return Ok(());
            }
            // Messages are aligned to 4 bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
