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
const OFF_WITH_A_PROBE: i32 = 0;

/// Values of `TCP_REPAIR_QUEUE`.
const RECEIVED: i32 = 1;
const SENT: i32 = 2;

/// Why a number is not known.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The kernel does not tell it. The connection goes on as before.
    #[error(transparent)]
    NotTold(#[from] io::Error),
    /// The socket is in repair mode still, in which nothing is sent or received: the connection is over.
    #[error("the socket cannot leave repair mode: {0}")]
    Stuck(#[source] io::Error),
}

/// The sequence number of the first byte that a socket will send. It is connecting or connected, and nothing was written yet.
///
/// # Errors
///
/// [`Unknown`]; the kernel does not tell without CAP_NET_ADMIN in the socket's namespace (`EPERM`).
pub fn first_sent(socket: impl AsFd) -> Result<u32, Unknown> {
    in_repair(&socket, || next(&socket, SENT))
}

/// The sequence number of the first byte that a socket has received or will receive; one more when all has come, and its end.
/// Nothing was read yet.
///
/// # Errors
///
/// As [`first_sent`]; `WouldBlock` when bytes come faster than they can be counted.
pub fn first_received(socket: impl AsFd) -> Result<u32, Unknown> {
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

/// Takes a socket out of repair mode.
///
/// # Errors
///
/// As setsockopt(2) `TCP_REPAIR`. Nothing comes of the socket then.
pub fn end_repair(socket: impl AsFd) -> io::Result<()> {
    let end = |value| set_option(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, value);
    end(OFF).or_else(|_| end(OFF_WITH_A_PROBE))
}

/// Repair mode forgets SO_REUSEADDR.
fn in_repair<T>(socket: impl AsFd, ask: impl FnOnce() -> io::Result<T>) -> Result<T, Unknown> {
    let reuse_address = option::<i32>(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    set_option(&socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, ON)?;
    let answer = ask();
    end_repair(&socket).map_err(Unknown::Stuck)?;
    if reuse_address != 0
        && let Err(error) = set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse_address)
    {
        // An application that starts there may find the port taken; the number is as good.
        tracing::debug!(%error, "setsockopt SO_REUSEADDR");
    }
    Ok(answer?)
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
    /// As another user, without CAP_NET_ADMIN, until this is dropped: this thread alone.
    struct WithoutRights;

    fn be(user: u32) {
        const SAME: i32 = -1;
        // SAFETY: takes integers only.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, SAME, user, SAME) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    impl WithoutRights {
        fn begin() -> Self {
            be(65_534);
            Self
        }
    }

    impl Drop for WithoutRights {
        fn drop(&mut self) {
            be(0);
        }
    }

    #[test]
    fn a_socket_that_cannot_leave_repair_mode_is_told_from_one_that_was_never_in_it() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs CAP_NET_ADMIN");
            return;
        }
        let mode = |socket: &TcpStream| option::<i32>(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR).unwrap();
        let (dialled, accepted) = pair();
        let without_rights = WithoutRights::begin();
        assert!(matches!(first_sent(&dialled), Err(Unknown::NotTold(_))));
        assert!(matches!(first_received(&accepted), Err(Unknown::NotTold(_))));
        drop(without_rights);
        assert_eq!((mode(&dialled), mode(&accepted)), (0, 0));
        let mut without_rights = None;
        let asked = in_repair(&dialled, || {
            without_rights = Some(WithoutRights::begin());
            Ok(())
        });
        drop(without_rights);
        assert!(matches!(asked, Err(Unknown::Stuck(_))), "{asked:?}");
        assert_eq!(mode(&dialled), 1);
        end_repair(&dialled).unwrap();
        first_sent(&dialled).unwrap();
        // What is not told leaves it out of repair mode, too.
        let asked = in_repair(&accepted, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        assert!(matches!(asked, Err(Unknown::NotTold(_))), "{asked:?}");
        assert_eq!(mode(&accepted), 0);
    }
}
