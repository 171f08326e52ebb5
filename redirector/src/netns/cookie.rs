//! What a network namespace is known by.

use std::{fmt, fs::File, os::fd::AsFd};

use socket2::{Domain, Socket, Type};

use super::NetnsFile;
use crate::sys::{SyscallError, named, namespace::netns_of, socket};

/// What the kernel calls a network namespace by: never re-used before a reboot.
///
/// Before Linux 5.14 the kernel has no such number, and this is the inode number of the namespace instead. That may
/// be re-used when the namespace is gone, so it means one namespace only for as long as a socket of ours is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetnsCookie(pub u64);

impl NetnsCookie {
    /// Of the namespace that a socket lives in. Before Linux 5.14 it needs CAP_NET_ADMIN there.
    ///
    /// # Errors
    ///
    /// As getsockopt(2) `SO_NETNS_COOKIE`, ioctl(2) `SIOCGSKNS`.
    pub fn of(socket: impl AsFd) -> Result<Self, SyscallError> {
        match socket::netns_cookie(&socket) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Self::by_inode(socket),
            result => named("getsockopt SO_NETNS_COOKIE", result).map(Self),
        }
    }

    fn by_inode(socket: impl AsFd) -> Result<Self, SyscallError> {
        let netns = named("ioctl SIOCGSKNS", netns_of(socket))?;
        Ok(Self(named("fstat", NetnsFile::of(netns))?.inode))
    }

    /// Of the namespace of this thread. Needs no privilege.
    ///
    /// # Errors
    ///
    /// As socket(2), getsockopt(2) `SO_NETNS_COOKIE`; before Linux 5.14 as open(2) of `/proc/thread-self/ns/net`.
    pub fn here() -> Result<Self, SyscallError> {
        let socket = named("socket AF_UNIX", Socket::new(Domain::UNIX, Type::STREAM, None))?;
        match socket::netns_cookie(&socket) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                let own = File::open("/proc/thread-self/ns/net").and_then(NetnsFile::of);
                named("open /proc/thread-self/ns/net", own).map(|file| Self(file.inode))
            }
            result => named("getsockopt SO_NETNS_COOKIE", result).map(Self),
        }
    }
}

impl fmt::Display for NetnsCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inode_is_the_same_from_inside_and_by_a_socket() {
        let own = NetnsFile::of(File::open("/proc/thread-self/ns/net").unwrap()).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        match NetnsCookie::by_inode(socket) {
            Ok(by_socket) => assert_eq!(by_socket, NetnsCookie(own.inode)),
            // Without CAP_NET_ADMIN.
            Err(error) => assert_eq!(error.source.kind(), std::io::ErrorKind::PermissionDenied),
        }
    }

    #[test]
    fn a_namespace_has_one_cookie_whatever_socket_is_asked() {
        let here = NetnsCookie::here().unwrap();
        assert_eq!(NetnsCookie::of(std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap(), here);
    }
}
