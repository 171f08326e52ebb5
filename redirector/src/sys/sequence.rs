//! With which sequence numbers a TCP connection began: both ends know them, and no other connection has them.
//!
//! The kernel tells them of a socket in repair mode (`TCP_REPAIR`, tcp(7) and net/ipv4/tcp.c), for which it wants
//! CAP_NET_ADMIN. A socket that is in it only to be asked sends and receives as before, but nobody else may read or write at
//! that moment.

use std::{io, os::fd::AsFd};

use super::socket::{option, set_option, unread};

/// Values of `TCP_REPAIR`, include/uapi/linux/tcp.h. `OFF` without a window probe: minimum kernel 4.19.
const ON: i32 = 1;
const OFF: i32 = -1;

/// Values of `TCP_REPAIR_QUEUE`.
const RECEIVED: i32 = 1;
const SENT: i32 = 2;

/// The sequence number of the first byte that a socket will send. It is connecting or connected, and nothing was written yet.
///
/// # Errors
///
/// As setsockopt(2) `TCP_REPAIR`: `EPERM` without CAP_NET_ADMIN in the socket's namespace.
pub fn first_sent(socket: impl AsFd) -> io::Result<u32> {
    in_repair(&socket, || next(&socket, SENT))
}

/// The sequence number of the first byte that a socket has received or will receive; one more when all has come, and its end.
/// Nothing was read yet.
///
/// # Errors
///
/// As [`first_sent`]; `WouldBlock` when bytes come faster than they can be counted.
pub fn first_received(socket: impl AsFd) -> io::Result<u32> {
    const LOOKS: u32 = 16;
    in_repair(&socket, || {
        for _ in 0..LOOKS {
            let (before, waiting, after) =
                (next(&socket, RECEIVED)?, unread(&socket)?, next(&socket, RECEIVED)?);
            if before == after {
                return Ok(after.wrapping_sub(waiting));
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    })
}

fn next(socket: impl AsFd, queue: i32) -> io::Result<u32> {
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
    option(&socket, libc::IPPROTO_TCP, libc::TCP_QUEUE_SEQ)
}

/// Repair mode forgets SO_REUSEADDR.
fn in_repair<T>(socket: impl AsFd, ask: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let reuse_address = option::<i32>(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, ON)?;
    let answer = ask();
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, OFF)?;
    if reuse_address != 0 {
        set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse_address)?;
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{Shutdown, TcpListener, TcpStream},
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (dialled, listener.accept().unwrap().0)
    }

    #[test]
    fn both_ends_of_a_connection_know_the_same_number_whatever_came_since() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs CAP_NET_ADMIN");
            return;
        }
        let ((mut dialled, accepted), (stranger, _other)) = (pair(), pair());
        let sent = first_sent(&dialled).unwrap();
        assert_eq!(first_received(&accepted).unwrap(), sent);
        assert_ne!(first_sent(&stranger).unwrap(), sent);
        dialled.write_all(&[0; 1000]).unwrap();
        assert_eq!(first_received(&accepted).unwrap(), sent);
        dialled.shutdown(Shutdown::Write).unwrap();
        assert_eq!(first_received(&accepted).unwrap(), sent.wrapping_add(1));
        // It works as before.
        let reused: i32 = option(&accepted, libc::SOL_SOCKET, libc::SO_REUSEADDR).unwrap();
        assert_eq!(reused, 1);
        let mut accepted = accepted;
        accepted.write_all(b"x").unwrap();
        assert_eq!(std::io::Read::read(&mut accepted, &mut [0; 2000]).unwrap(), 1000);
    }
}
