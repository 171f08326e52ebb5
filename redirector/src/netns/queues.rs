//! Accept queues: how many connections wait in the queue of each listener, and which connections wait. Called inside the
//! namespace, see [`super::enter()`].
//!
//! The kernel tells neither which connections are in which queue, nor when somebody has accepted last. inet_diag (sock_diag(7))
//! tells the length of each queue, and of each connection whether a process has it: one that nobody has accepted has no inode.

use std::{collections::HashMap, io};

use netlink_packet_sock_diag::inet::{ExtensionFlags, InetResponse, InetResponseHeader, StateFlags};
use nix::libc::{AF_INET, AF_INET6, IPPROTO_TCP};

use super::{
    connections::{dump, ends_of, is_missing},
    ends::Ends,
};

/// A connection that is established, or that its peer has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpChild {
    /// The cookie of its socket.
    pub cookie: u64,
    /// Its ends.
    pub ends: Ends,
    /// A process has it; else it waits in the queue of a listener.
    pub is_accepted: bool,
}

/// How many connections wait in the queue of each listener, by the cookie of that socket.
///
/// # Errors
///
/// When inet_diag does not answer: `ENOENT` on a kernel without it.
pub fn queues() -> io::Result<HashMap<u64, u32>> {
    let mut queues = HashMap::new();
    visit(StateFlags::LISTEN, |answer| {
        queues.insert(cookie(answer), answer.recv_queue);
    })?;
    Ok(queues)
}

/// The connections of which one end is in this namespace. Among very many some are missing.
///
/// # Errors
///
/// As [`queues`].
pub fn children() -> io::Result<Vec<TcpChild>> {
    let mut children = Vec::new();
    visit(StateFlags::ESTABLISHED | StateFlags::CLOSE_WAIT, |answer| {
        let is_accepted = answer.inode != 0;
        children.push(TcpChild { cookie: cookie(answer), ends: ends_of(answer), is_accepted });
    })?;
    Ok(children)
}

fn visit(states: StateFlags, mut each: impl FnMut(&InetResponseHeader)) -> io::Result<()> {
    let mut header = |answer: &InetResponse| each(&answer.header);
    dump((AF_INET, IPPROTO_TCP, states.clone()), ExtensionFlags::empty(), &mut header)?;
    match dump((AF_INET6, IPPROTO_TCP, states), ExtensionFlags::empty(), header) {
        // A kernel without IPv6.
        Err(error) if is_missing(&error) => Ok(()),
        asked => asked,
    }
}

/// As `SO_COOKIE` gives it: two words, the lower one first.
fn cookie(answer: &InetResponseHeader) -> u64 {
    let [a, b, c, d, e, f, g, h] = answer.socket_id.cookie;
    let [low, high] = [[a, b, c, d], [e, f, g, h]].map(u32::from_ne_bytes).map(u64::from);
    low | high << 32
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use socket2::SockRef;

    use super::*;

    #[test]
    fn a_connection_waits_in_the_queue_of_its_listener_until_it_is_accepted() {
        for bound in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(bound).unwrap();
            let cookie = SockRef::from(&listener).cookie().unwrap();
            let local = listener.local_addr().unwrap();
            let length = || queues().unwrap()[&cookie];
            assert_eq!(length(), 0, "{bound}");
            let client = TcpStream::connect(local).unwrap();
            let child = || {
                let is_it = |child: &TcpChild| child.ends.remote == client.local_addr().unwrap();
                children().unwrap().into_iter().find(is_it).unwrap()
            };
            assert_eq!((length(), child().is_accepted), (1, false), "{bound}");
            let (accepted, _) = listener.accept().unwrap();
            assert_eq!((length(), child().is_accepted), (0, true), "{bound}");
            assert_eq!(SockRef::from(&accepted).cookie().unwrap(), child().cookie, "{bound}");
        }
    }
}
