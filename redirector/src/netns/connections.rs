//! TCP connections of a namespace, by state. Called inside it, see [`super::enter()`].
//!
//! The kernel's inet_diag is asked (sock_diag(7)), which chooses by state itself: so it costs what is there in that state,
//! however many other sockets the namespace has. A kernel without it is asked by `/proc`.

use std::{io, net::SocketAddr, ops::ControlFlow};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    inet::{ExtensionFlags, InetRequest, InetResponse, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use nix::libc::{AF_INET, AF_INET6, EACCES, EAFNOSUPPORT, ENOENT, EPERM, EPROTONOSUPPORT, IPPROTO_TCP};

use super::{
    ends::{Ends, State},
    netlink, proc_tcp,
};
use crate::sys::inject::point;

/// Connections of each family that are looked at, so that it takes no longer the more there are: those of one state are as many as
/// whoever is steered makes. It takes some 100 ms.
const LOOKED_AT: usize = 100_000;

/// How many TCP connections are established whose ends `accepts` takes; among very many at least how many.
///
/// # Errors
///
/// When neither inet_diag nor `/proc/thread-self/net/tcp` answers.
pub fn established(accepts: impl Fn(Ends) -> bool) -> io::Result<u64> {
    let mut count = 0;
    visit(State::Established, |ends| count += u64::from(accepts(ends)))?;
    Ok(count)
}

/// The TCP handshakes that are under way: a SYN has been answered, and the answer is not acknowledged. Among very many
/// some are missing.
///
/// # Errors
///
/// As [`established`].
pub fn handshakes() -> io::Result<Vec<Ends>> {
    let mut found = Vec::new();
    visit(State::SynReceived, |ends| found.push(ends))?;
    Ok(found)
}

/// Visits the connections in one state.
fn visit(state: State, mut each: impl FnMut(Ends)) -> io::Result<()> {
    // A kernel that cannot answer says so of the first family.
    let mut connection = |answer: &InetResponse| each(ends_of(&answer.header));
    match dump((AF_INET, IPPROTO_TCP, state.flag()), ExtensionFlags::empty(), &mut connection) {
        Err(error) if is_missing(&error) => {
            tracing::debug!(%error, "this kernel has no inet_diag for TCP: reading /proc/net/tcp instead");
            return proc_tcp::visit(state, each);
        }
        asked => asked?,
    }
    match dump((AF_INET6, IPPROTO_TCP, state.flag()), ExtensionFlags::empty(), connection) {
        // A kernel without IPv6.
        Err(error) if is_missing(&error) => Ok(()),
        asked => asked,
    }
}

/// Whether the kernel was built without what was asked for, may not load it, or does not let us ask.
pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOENT | EPROTONOSUPPORT | EAFNOSUPPORT | EACCES | EPERM))
}

/// The ends of a connection that inet_diag describes.
pub(super) fn ends_of(answer: &InetResponseHeader) -> Ends {
    let id = &answer.socket_id;
    let local = SocketAddr::new(id.source_address.to_canonical(), id.source_port);
    let remote = SocketAddr::new(id.destination_address.to_canonical(), id.destination_port);
    Ends { local, remote }
}

/// Asks for the sockets of one family and protocol that are in one of these states, and for what else there is of them, by a socket
/// that is closed when this returns: it would keep the namespace.
pub(super) fn dump(
    (family, protocol, states): (i32, i32, StateFlags),
    extensions: ExtensionFlags,
    mut each: impl FnMut(&InetResponse),
) -> io::Result<()> {
    let socket = Socket::new(NETLINK_SOCK_DIAG)?;
    let number = |number: i32| u8::try_from(number).expect("families and protocols are small");
    let question = InetRequest {
        family: number(family),
        protocol: number(protocol),
        extensions,
        states,
        socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
    };
    point("sendto NETLINK_SOCK_DIAG")?;
    netlink::send(&socket, SockDiagMessage::InetRequest(question), NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut left = LOOKED_AT;
    netlink::answers(&socket, |answer| {
        if let SockDiagMessage::InetResponse(answer) = answer {
            each(&answer);
            left -= 1;
        }
        if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        net::{TcpListener, TcpStream},
    };

    use nix::libc::TCP_DEFER_ACCEPT;

    use super::*;
    use crate::sys::socket;

    fn of(address: SocketAddr) -> impl Fn(Ends) -> bool {
        move |ends| ends.local == address
    }

    #[test]
    fn a_connection_of_this_process_is_counted_whatever_its_family() {
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let address = listener.local_addr().unwrap();
            assert_eq!(established(of(address)).unwrap(), 0, "{bound}");
            let client = TcpStream::connect(address).unwrap();
            assert_eq!(established(of(address)).unwrap(), 1, "{bound}");
            let both = Ends { local: address, remote: client.local_addr().unwrap() };
            assert_eq!(established(|ends| ends == both).unwrap(), 1, "{bound}");
            assert!(!handshakes().unwrap().contains(&both), "{bound}: it is over");
        }
    }

    #[test]
    fn a_handshake_is_one_until_it_is_finished() {
        for bound in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            // It is not finished before there are data.
            socket::set_option(&listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 30).unwrap();
            let local = listener.local_addr().unwrap();
            let mut client = TcpStream::connect(local).unwrap();
            let ends = Ends { local, remote: client.local_addr().unwrap() };
            let count = || handshakes().unwrap().into_iter().filter(|one| *one == ends).count();
            assert_eq!((count(), established(of(local)).unwrap()), (1, 0), "{bound}");
            client.write_all(b"data").unwrap();
            let _accepted = listener.accept().unwrap();
            assert_eq!((count(), established(of(local)).unwrap()), (0, 1), "{bound}");
        }
    }

    #[test]
    fn inet_diag_and_proc_say_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..3).map(|_| TcpStream::connect(local).unwrap()).collect();
        let of_proc = || {
            let mut count = 0;
            proc_tcp::visit(State::Established, |ends| count += u64::from(of(local)(ends))).unwrap();
            count
        };
        assert_eq!((established(of(local)).unwrap(), of_proc()), (3, 3));
        drop(clients);
    }
}
