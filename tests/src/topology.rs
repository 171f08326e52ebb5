//! A pod and a client, joined by a veth pair, IPv4 and IPv6.
//!
//! Addresses are the same in every test: a namespace sees only its own.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::{eventually::eventually, netns::Netns};

/// The pod's IPv4 address.
pub const POD_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// The pod's IPv6 address.
pub const POD_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1));
/// The client's IPv4 address.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2));
/// The client's IPv6 address.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2));

/// The pod's address, and the one that a client of the same family has.
pub const PAIRS: [(IpAddr, IpAddr); 2] = [(POD_V4, CLIENT_V4), (POD_V6, CLIENT_V6)];

/// An address with a port.
#[must_use]
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// Two namespaces. In both the device is `eth0`.
#[derive(Debug)]
pub struct Topology {
    /// Where redirector steers.
    pub pod: Netns,
    /// Who connects from outside.
    pub client: Netns,
}

impl Topology {
    /// A pod with a name.
    #[track_caller]
    #[must_use]
    pub fn new() -> Self {
        Self::around(Netns::new())
    }

    /// A new client for a pod that has no device yet.
    #[track_caller]
    #[must_use]
    pub fn around(pod: Netns) -> Self {
        let topology = Self { pod, client: Netns::new() };
        topology.join();
        topology
    }

    #[track_caller]
    fn join(&self) {
        // Made inside: neither end is ever in the namespace of the host, where its name could clash.
        // Without `nodad` an IPv6 address cannot be used for a second or two. No link-local addresses: they come
        // when they like, and a snapshot would see them come.
        self.client.ip("link set lo up");
        self.pod.ip(&format!(
            "link add eth0 type veth peer name eth0 netns {}\n\
             link set lo up\n\
             link set eth0 addrgenmode none up\n\
             address add {POD_V4}/24 dev eth0\n\
             address add {POD_V6}/64 dev eth0 nodad",
            self.client.name()
        ));
        self.client.ip(&format!(
            "link set eth0 addrgenmode none up\n\
             address add {CLIENT_V4}/24 dev eth0\n\
             address add {CLIENT_V6}/64 dev eth0 nodad"
        ));
        // What the kernel adds by itself when a device begins to work, in no order that could be relied on.
        let own = format!("local {POD_V6} dev eth0");
        eventually("the pod's device works", Duration::from_secs(1), || {
            let routes = self.pod.must("ip", &["-6", "route", "show", "table", "local"]).stdout;
            if ["multicast ff00::/8", &own].iter().all(|route| routes.contains(route)) {
                Ok(())
            } else {
                Err(routes)
            }
        });
    }

    /// Whether the client still has its end of the pair: the kernel takes it away when the pod dies.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.client.run("ip", &["link", "show", "dev", "eth0"]).status.success()
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::new()
    }
}
