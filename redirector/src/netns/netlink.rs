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
    loop {
        let (datagram, _) = socket.recv_from_full()?;
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
            if answer.is_some_and(|answer| each(answer).is_break()) {
                return Ok(());
            }
            // Messages are aligned to 4 bytes.
            let length = (message.header.length as usize).next_multiple_of(4).max(16);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
