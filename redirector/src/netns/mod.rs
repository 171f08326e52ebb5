//! Work inside a network namespace: a closure on a thread that then ends, and sockets made there.
//!
//! [`enter()`] is the only place that calls setns(2). Nothing stays behind: no thread, no nsfs fd, no idle socket.

mod arrival;
mod bystanders;
mod connections;
mod cookie;
mod ends;
mod enter;
mod factory;
mod family;
mod interface;
mod location;
mod loopback;
mod netfilter;
mod netlink;
mod proc_tcp;
mod process_link;
mod queues;
mod routes;
mod segments_dropped;
mod survey;

use std::{io, os::fd::AsFd};

use nix::sys::stat::fstat;

pub use arrival::{Arrival, ArrivalError, By, Delivery, arrival};
pub use bystanders::{Bystander, bystanders};
pub use connections::{established, handshakes};
pub use cookie::NetnsCookie;
pub use ends::Ends;
pub use enter::{enter, in_new};
pub use factory::{Anchor, SocketFactory};
pub use family::Family;
pub use interface::{InterfaceIndex, interfaces, interfaces_named};
pub use location::Location;
pub use loopback::raise_loopback;
pub use netfilter::{BaseChain, BaseChains, LegacyTable, Netfilter, netfilter};
pub use process_link::ProcessLink;
pub use queues::{TcpChild, children, queues};
pub use segments_dropped::segments_dropped;
pub use survey::{Survey, survey};

/// The nsfs file of a namespace. Means it only for as long as something keeps the namespace: inode numbers are
/// re-used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetnsFile {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode number.
    pub inode: u64,
}

impl NetnsFile {
    /// Of an nsfs fd.
    ///
    /// # Errors
    ///
    /// As fstat(2).
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = fstat(fd)?;
        Ok(Self { dev: stat.st_dev, inode: stat.st_ino })
    }
}
