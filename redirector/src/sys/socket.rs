//! Socket options and ioctls that `nix` and `socket2` have not.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use super::inject::point;

/// `SIOCOUTQ` and `SIOCINQ`, include/uapi/linux/sockios.h; the same numbers as `TIOCOUTQ` and `FIONREAD`.
mod request {
    nix::ioctl_read_bad!(output_queue, nix::libc::TIOCOUTQ, nix::libc::c_int);
    nix::ioctl_read_bad!(input_queue, nix::libc::FIONREAD, nix::libc::c_int);
}

/// Bytes, and a FIN as one more, that the peer has not acknowledged.
///
/// # Errors
///
/// As ioctl(2) `SIOCOUTQ`; `EINVAL` for a listener.
pub fn unacknowledged(socket: impl AsFd) -> io::Result<u32> {
    point("ioctl SIOCOUTQ")?;
    let mut count = 0;
    // SAFETY: the kernel writes one int, for which there is room.
    unsafe { request::output_queue(socket.as_fd().as_raw_fd(), &raw mut count) }?;
    Ok(u32::try_from(count).unwrap_or(0))
}

/// What the kernel knows about a TCP connection: the part of `struct tcp_info` that is used here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// `TCP_CLOSE` and the others, include/net/tcp_states.h.
    pub state: u8,
    /// Retransmissions since the peer has last acknowledged a byte. Those that wait in a queue of this host count, and
    /// are not among [`Self::segments`].
    pub retransmits: u8,
    /// Window probes since the peer has last answered anything.
    pub probes: u8,
    /// Segments that are sent and not acknowledged.
    pub in_flight: u32,
    /// Milliseconds since the peer's last acknowledgement, answers to window probes and to keep-alive included.
    pub since_answer: u32,
    /// Bytes that the peer has acknowledged. Minimum kernel 4.1.
    pub acknowledged: u64,
    /// Segments that were sent, window probes included. Minimum kernel 4.2.
    pub segments: u32,
}

/// Reads `TCP_INFO`.
///
/// # Errors
///
/// As getsockopt(2).
pub fn tcp_info(socket: impl AsFd) -> io::Result<TcpInfo> {
    // `struct tcp_info` of include/uapi/linux/tcp.h up to `tcpi_segs_out`. What an older kernel does not write stays 0.
    let words: [u32; 35] = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    let [state, _, retransmits, probes] = words[0].to_ne_bytes();
    Ok(TcpInfo {
        state,
        retransmits,
        probes,
        in_flight: words[6],
        since_answer: words[14],
        acknowledged: bytemuck::pod_read_unaligned(bytemuck::cast_slice(&words[30..32])),
        segments: words[34],
    })
}

/// Lets the pause between two retransmissions, or two window probes, grow to this much instead of two minutes. Minimum kernel 6.15
/// (`ENOPROTOOPT` before).
///
/// # Errors
///
/// As setsockopt(2) `TCP_RTO_MAX_MS`.
pub fn set_longest_retransmission_pause(socket: impl AsFd, milliseconds: i32) -> io::Result<()> {
    const TCP_RTO_MAX_MS: i32 = 44;
    set_option(socket, libc::IPPROTO_TCP, TCP_RTO_MAX_MS, milliseconds)
}

/// Bytes that the peer has sent and nobody has read, a FIN not counted.
///
/// # Errors
///
/// As ioctl(2) `SIOCINQ`; `EINVAL` for a listener.
pub fn unread(socket: impl AsFd) -> io::Result<u32> {
    point("ioctl SIOCINQ")?;
    let mut count = 0;
    // SAFETY: the kernel writes one int, for which there is room.
    unsafe { request::input_queue(socket.as_fd().as_raw_fd(), &raw mut count) }?;
    Ok(u32::try_from(count).unwrap_or(0))
}

/// Sets a whole-number socket option.
///
/// # Errors
///
/// As setsockopt(2).
pub fn set_option(socket: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    point("setsockopt")?;
    let length = u32::try_from(size_of::<i32>()).expect("4");
    // SAFETY: the kernel reads the 4 bytes of `value`.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw const value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads a fixed-size socket option.
///
/// # Errors
///
/// As getsockopt(2).
pub fn option<T: bytemuck::Pod>(socket: impl AsFd, level: i32, name: i32) -> io::Result<T> {
    point("getsockopt")?;
    let mut value = T::zeroed();
    let mut length = u32::try_from(size_of::<T>()).expect("options are small");
    // SAFETY: the kernel writes at most `length` bytes into `value`, whose every bit pattern is one.
    let result = unsafe {
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// Whether the peer of a TCP socket that we have connected has acknowledged any byte, or sent one. Then it has the
/// connection, also where it answered with a SYN cookie. Minimum kernel 4.1.
///
/// # Errors
///
/// As getsockopt(2) `TCP_INFO`.
pub fn has_been_answered(socket: impl AsFd) -> io::Result<bool> {
    // `tcpi_bytes_acked`, in which our SYN counts as a byte, and `tcpi_bytes_received`, include/uapi/linux/tcp.h.
    let info = option::<[u64; 17]>(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    Ok(info[15] > 1 || info[16] > 0)
}

/// Words of the header of a control message.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>() / 4;

/// Index of the interface by which the packet came that opened an accepted TCP connection: what `sk_lookup` programs know as
/// `ingress_ifindex` (`mc_index` and `mcast_oif`, `tcp_v4_syn_recv_sock`, net/ipv4/tcp_ipv4.c and its twin in net/ipv6). It is
/// that of the ACK that completes the handshake: when the client's way changes between SYN and ACK, not that of the SYN.
///
/// # Errors
///
/// As setsockopt(2) `IP_PKTINFO`, `IPV6_RECVPKTINFO`, getsockopt(2) `IP_PKTOPTIONS`, `IPV6_2292PKTOPTIONS`.
pub fn ingress_ifindex(socket: impl AsFd, is_ipv6: bool) -> io::Result<u32> {
    // Where it is in `struct in6_pktinfo` behind an address, in `struct in_pktinfo` before two.
    let (level, enable, read, kind, word) = if is_ipv6 {
        let (enable, read) = (libc::IPV6_RECVPKTINFO, libc::IPV6_2292PKTOPTIONS);
        (libc::IPPROTO_IPV6, enable, read, libc::IPV6_PKTINFO, 4)
    } else {
        (libc::IPPROTO_IP, libc::IP_PKTINFO, libc::IP_PKTOPTIONS, libc::IP_PKTINFO, 0)
    };
    set_option(&socket, level, enable, 1)?;
    // One control message: `struct cmsghdr` ends with level and type.
    let message = option::<[i32; 16]>(&socket, level, read);
    // Left on, IPv6 would keep a copy of packets for whoever asks.
    set_option(&socket, level, enable, 0)?;
    let message = message?;
    if message[CONTROL_HEADER - 2..CONTROL_HEADER] != [level, kind] {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(message[CONTROL_HEADER + word].cast_unsigned())
}

/// Whether a socket listens (`SO_ACCEPTCONN`).
///
/// # Errors
///
/// As getsockopt(2).
pub fn is_listening(socket: impl AsFd) -> io::Result<bool> {
    option::<i32>(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).map(|value| value != 0)
}

/// The cookie of the network namespace that a socket lives in. Never re-used before a reboot. Minimum kernel
/// 5.14 (`ENOPROTOOPT` before).
///
/// # Errors
///
/// As getsockopt(2).
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    const SO_NETNS_COOKIE: i32 = 71;
    option(socket, libc::SOL_SOCKET, SO_NETNS_COOKIE)
}

/// Undoes whatever connection a TCP socket had, and its shutdown, but not its binding (connect(2) to
/// `AF_UNSPEC`).
///
/// # Errors
///
/// As connect(2).
pub fn disconnect(socket: impl AsFd) -> io::Result<()> {
    point("connect AF_UNSPEC")?;
    // SAFETY: all zeroes is a `sockaddr`, of family `AF_UNSPEC`.
    let unspecified: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = u32::try_from(size_of::<libc::sockaddr>()).expect("16");
    // SAFETY: the kernel reads the 16 bytes of `unspecified`.
    let result = unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const unspecified, length) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends a listener back to `LISTEN` (listen(2) on a socket that is bound already).
///
/// # Errors
///
/// As listen(2).
pub fn listen(socket: impl AsFd, backlog: i32) -> io::Result<()> {
    point("listen")?;
    // SAFETY: takes integers only.
    let result = unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The process at the other end of a Unix socket, as a pidfd. Minimum kernel 6.5 (`SO_PEERPIDFD`); before that,
/// by the peer's process id, which may by then be another process's when the peer has ended.
///
/// # Errors
///
/// As getsockopt(2), pidfd_open(2); `ESRCH` when the peer cannot be seen from this PID namespace.
pub fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    match exact_peer_pidfd(&socket) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
            let credentials =
                nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
            super::namespace::pidfd_open(credentials.pid())
        }
        result => result,
    }
}

/// [`peer_pidfd`] without the way that old kernels need. Minimum kernel 6.5.
///
/// # Errors
///
/// As getsockopt(2) `SO_PEERPIDFD`: `ENOPROTOOPT` before.
pub fn exact_peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    const SO_PEERPIDFD: i32 = 77;
    option::<i32>(socket, libc::SOL_SOCKET, SO_PEERPIDFD).map(|fd| super::owned(fd.into()))
}

/// What a look at the process at the other end of a Unix socket shows, by its number. `None`: it has ended, and the number may
/// be another process's. Before Linux 6.5 that cannot be told.
///
/// # Errors
///
/// As getsockopt(2).
pub fn of_peer<T>(socket: impl AsFd, look: impl FnOnce(i32) -> T) -> io::Result<Option<T>> {
    let process = match exact_peer_pidfd(&socket) {
        Ok(process) => Some(process),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => None,
            // `pidfd_prepare`, kernel/fork.c.
            Some(libc::ESRCH | libc::EINVAL) => return Ok(None),
            _ => return Err(error),
        },
    };
    let credentials = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::PeerCredentials)?;
    let seen = look(credentials.pid());
    // While it can be sent a signal, its number is nobody else's.
    let is_there = process.is_none_or(|process| super::namespace::pidfd_send_signal(process, 0).is_ok());
    Ok(is_there.then_some(seen))
}

/// Refuses fds that somebody sends to a Unix socket: the sender gets `EPERM`. Who accepts from it inherits that. Minimum
/// kernel 6.16 (`ENOPROTOOPT` before).
///
/// # Errors
///
/// As setsockopt(2) `SO_PASSRIGHTS`.
pub fn refuse_fds(socket: impl AsFd) -> io::Result<()> {
    const SO_PASSRIGHTS: i32 = 83;
    set_option(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, 0)
}

/// A message, and what came with it.
#[derive(Debug)]
pub struct Received {
    /// Of the message. None is 0 bytes.
    pub length: usize,
    /// Close-on-exec.
    pub fds: Vec<OwnedFd>,
    /// There was more: of the message, which the buffer is too small for, or of the fds, when there can be no more.
    pub is_cut: bool,
}

/// Receives one message and the fds that came with it.
///
/// # Errors
///
/// As recvmsg(2).
pub fn receive_with_fds(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    /// `SCM_MAX_FD`, include/net/scm.h: as many as a message can have. With room for fewer, those that fit would be
    /// open already and nobody's.
    const MOST: usize = 253;
    point("recvmsg")?;
    let mut control = nix::cmsg_space!([i32; MOST]);
    let mut parts = [io::IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(
        socket.as_fd().as_raw_fd(),
        &mut parts,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    // It gives none where some are missing.
    for part in message.cmsgs().into_iter().flatten() {
        if let ControlMessageOwned::ScmRights(received) = part {
            fds.extend(received.into_iter().map(|fd| super::owned(fd.into())));
        }
    }
    let is_cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    Ok(Received { length: message.bytes, fds, is_cut })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_peer_has_answered_when_it_has_acknowledged_a_byte_or_sent_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dial = || TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        for asks in [true, false] {
            let mut dialled = dial();
            let (mut accepted, _) = listener.accept().unwrap();
            assert!(!has_been_answered(&dialled).unwrap(), "a handshake is no answer");
            let (from, to) = if asks { (&mut dialled, &mut accepted) } else { (&mut accepted, &mut dialled) };
            from.write_all(b"x").unwrap();
            to.read_exact(&mut [0]).unwrap();
            assert!(has_been_answered(&dialled).unwrap());
        }
    }
    /// A process that does something, which must be safe in the child of a process with threads.
    fn child(work: impl FnOnce()) -> nix::unistd::Pid {
        // SAFETY: the child makes system calls only, and ends.
        match unsafe { libc::fork() } {
            0 => {
                work();
                // SAFETY: as above.
                unsafe { libc::_exit(0) }
            }
            pid => nix::unistd::Pid::from_raw(pid),
        }
    }

    #[test]
    fn a_peer_that_has_ended_is_not_taken_for_who_has_its_number_now() {
        use nix::sys::wait::waitpid;
        let dir = tempfile::tempdir().unwrap();
        let connected = |listens: &dyn Fn(&socket2::Socket)| {
            let path = socket2::SockAddr::unix(dir.path().join("socket")).unwrap();
            let _none_before = std::fs::remove_file(dir.path().join("socket"));
            let [listener, dialled] = [(); 2]
                .map(|()| socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap());
            listener.bind(&path).unwrap();
            listens(&listener);
            dialled.connect(&path).unwrap();
            (listener, dialled)
        };
        let (_listener, dialled) = connected(&|listener| listener.listen(1).unwrap());
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(of_peer(&dialled, |pid| pid).unwrap(), Some(own));
        if exact_peer_pidfd(&dialled).is_err() {
            eprintln!("skipped: needs Linux 6.5");
            return;
        }
        // Who calls listen(2) is the peer, and its socket is ours as well.
        let (_listener, dialled) = connected(&|listener| {
            let process = child(|| drop(listen(listener, 1)));
            waitpid(process, None).unwrap();
        });
        assert_eq!(of_peer(&dialled, |pid| pid).unwrap(), None);
        // It ends while it is looked at.
        let process = std::cell::Cell::new(None);
        let (_listener, dialled) = connected(&|listener| {
            let waits = child(|| {
                drop(listen(listener, 1));
                nix::unistd::pause();
            });
            process.set(Some(waits));
            while !is_listening(listener).unwrap() {
                std::thread::yield_now();
            }
        });
        let seen = of_peer(&dialled, |pid| {
            let process = process.get().unwrap();
            assert_eq!(pid, process.as_raw());
            nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGKILL).unwrap();
            waitpid(process, None).unwrap();
        });
        assert_eq!(seen.unwrap(), None);
    }
}
