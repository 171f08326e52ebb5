//! Listeners in a SOCKMAP: `sockmap_listen.c` of the kernel.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpStream},
    os::fd::AsFd,
};

use nix::libc;
use redirector::{kernel::Instance, sys::SyscallError};
use redirector_tests::{HANG, eventually::eventually, netns::Netns, server::listen, topology::at};
use socket2::{Domain, Socket, Type};

use super::{LOOPBACK, slot_of};
use crate::SECOND;

/// The SOCKMAP of a program that runs nowhere, and a namespace for its sockets.
struct Map {
    instance: Instance,
    netns: Netns,
}

impl Map {
    fn new() -> Self {
        let netns = Netns::new();
        netns.ip("link set lo up");
        Self { instance: Instance::load().expect("load the program"), netns }
    }

    fn listen(&self, address: IpAddr) -> Socket {
        self.netns.enter(|| listen(at(address, 0)))
    }

    fn insert(&self, address: IpAddr, file: impl AsFd) -> Result<(), SyscallError> {
        self.instance.set_listener(slot_of(address), file.as_fd())
    }

    #[track_caller]
    fn cookie(&self, address: IpAddr) -> Option<u64> {
        self.instance.listener_cookie(slot_of(address)).expect("ask for the slot")
    }

    #[track_caller]
    fn assert_refuses(&self, address: IpAddr, file: impl AsFd, errno: i32) {
        let error = self.insert(address, file).expect_err("must be refused");
        assert_eq!(error.source.raw_os_error(), Some(errno), "{error:?}");
        assert_eq!(self.cookie(address), None);
    }
}

/// `test_insert_invalid`, `test_insert_opened`, `test_insert_bound`, `test_insert`: only what listens can be in a slot.
#[test]
fn insert_invalid_opened_bound_and_listening() {
    let map = Map::new();
    for address in LOOPBACK {
        map.assert_refuses(address, map.netns.open(), libc::ENOTSOCK);
        let socket = || Socket::new(Domain::for_address(at(address, 0)), Type::STREAM, None);
        let socket = map.netns.enter(socket).expect("socket");
        map.assert_refuses(address, &socket, libc::EOPNOTSUPP);
        socket.bind(&at(address, 0).into()).expect("bind");
        map.assert_refuses(address, &socket, libc::EOPNOTSUPP);
        socket.listen(1).expect("listen");
        map.insert(address, &socket).expect("it listens");
    }
}

/// `test_lookup_after_insert`, `test_delete_after_insert`, `test_lookup_after_delete`: by the cookie `list` knows whether
/// a listener is ours.
#[test]
fn lookup_after_insert_and_after_delete() {
    let map = Map::new();
    for address in LOOPBACK {
        let listener = map.listen(address);
        assert_eq!(map.cookie(address), None);
        map.insert(address, &listener).expect("insert");
        assert_eq!(map.cookie(address), Some(listener.cookie().expect("SO_COOKIE")));
        map.instance.clear_listener(slot_of(address));
        assert_eq!(map.cookie(address), None);
        // What was deleted can be inserted again.
        map.insert(address, &listener).expect("insert");
        assert!(map.cookie(address).is_some());
    }
}

/// `test_delete_after_close`: a socket that is closed leaves its slots by itself; to delete it then does no harm.
#[test]
fn delete_after_close() {
    let map = Map::new();
    for address in LOOPBACK {
        let listener = map.listen(address);
        map.insert(address, &listener).expect("insert");
        drop(listener);
        // Programs that other tests start have it too, between fork and exec.
        eventually("the slot is empty", SECOND, || map.cookie(address).map_or(Ok(()), Err));
        map.instance.clear_listener(slot_of(address));
        let next = map.listen(address);
        map.insert(address, &next).expect("insert");
        assert_eq!(map.cookie(address), Some(next.cookie().expect("SO_COOKIE")));
    }
}

/// `test_update_existing`: the last one has the slot, and the end of the one before does not empty it.
#[test]
fn update_existing() {
    let map = Map::new();
    for address in LOOPBACK {
        let [one, two] = [(), ()].map(|()| map.listen(address));
        map.insert(address, &one).expect("insert");
        map.insert(address, &two).expect("insert");
        let cookie = two.cookie().expect("SO_COOKIE");
        assert_eq!(map.cookie(address), Some(cookie));
        drop(one);
        assert_eq!(map.cookie(address), Some(cookie));
    }
}

/// `test_clone_after_delete`, `test_accept_after_delete`, `test_accept_before_delete`: to be taken out of its slot, before
/// a client connects, is accepted or speaks, is nothing to a listener or its connections.
#[test]
fn delete_before_clone_before_accept_and_after() {
    let map = Map::new();
    for (address, when) in LOOPBACK.into_iter().flat_map(|address| (0..3).map(move |when| (address, when))) {
        let listener = map.listen(address);
        map.insert(address, &listener).expect("insert");
        let delete = |now| {
            if now == when {
                map.instance.clear_listener(slot_of(address));
            }
        };
        let to = listener.local_addr().expect("getsockname").as_socket().expect("an IP address");
        delete(0);
        let mut client = map.netns.enter(|| TcpStream::connect_timeout(&to, HANG)).expect("connect");
        delete(1);
        let mut accepted = TcpStream::from(listener.accept().expect("accept").0);
        delete(2);
        assert_eq!(map.cookie(address), None);
        for stream in [&client, &accepted] {
            stream.set_read_timeout(Some(HANG)).expect("SO_RCVTIMEO");
        }
        let mut heard = [0; 4];
        client.write_all(b"ping").expect("write");
        accepted.read_exact(&mut heard).expect("read");
        accepted.write_all(&heard).expect("write");
        client.read_exact(&mut heard).expect("read");
        assert_eq!(&heard, b"ping");
    }
}
