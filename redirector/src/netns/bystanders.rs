//! Sockets of a namespace that a rule is easily turned against without meaning it. Called inside it, see [`super::enter()`].
//!
//! A listener with TCP-MD5 keys (RFC 2385): its peers sign their SYNs, and the kernel drops a signed SYN for a listener without that
//! key, ours for example. TCP-AO (RFC 5925) is not shown by inet_diag. And what Docker's name server in a container listens on.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use ipnet::IpNet;
use netlink_packet_core::Nla as _;
use netlink_packet_sock_diag::{
    constants::INET_DIAG_MD5SIG,
    inet::{ExtensionFlags, InetResponse, StateFlags, nlas::Nla},
};
use nix::libc::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};

use super::connections::{dump, is_missing};
use crate::config::Transport;

/// Whoever is in the namespace decides how many there are.
const MOST: usize = 32;

/// Where the name server of a Docker container listens, whatever the container is.
const DOCKER_DNS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// A socket that waits for peers, of a kind that a rule is easily turned against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bystander {
    /// Its protocol.
    pub protocol: Transport,
    /// Where it is bound.
    pub address: SocketAddr,
    /// The peers that sign what they send to it.
    pub md5_peers: Vec<IpNet>,
}

impl Bystander {
    /// Whether it is the name server that Docker has put into a container.
    #[must_use]
    pub fn is_docker_dns(&self) -> bool {
        self.address.ip() == DOCKER_DNS
    }

    /// Whether this peer signs what it sends to it.
    #[must_use]
    pub fn has_md5_key_for(&self, peer: IpAddr) -> bool {
        self.md5_peers.iter().any(|net| net.contains(&peer))
    }

    /// Whether what is sent to this address may be for it.
    #[must_use]
    pub fn may_get(&self, protocol: Transport, to: SocketAddr) -> bool {
        let own = self.address.ip();
        self.protocol == protocol
            && self.address.port() == to.port()
            && (own == to.ip() || own.is_unspecified() && (own.is_ipv6() || to.is_ipv4()))
    }
}

/// Looks for them, and tells of some where there are many.
///
/// # Errors
///
/// As sendto(2) and recvmsg(2) to inet_diag. A kernel without it tells of none.
pub fn bystanders() -> io::Result<Vec<Bystander>> {
    let mut found = Vec::new();
    for (family, protocol, states) in [
        (AF_INET, IPPROTO_TCP, StateFlags::LISTEN),
        (AF_INET6, IPPROTO_TCP, StateFlags::LISTEN),
        // A UDP socket without a peer.
        (AF_INET, IPPROTO_UDP, StateFlags::CLOSE),
    ] {
        let transport = if protocol == IPPROTO_TCP { Transport::Tcp } else { Transport::Udp };
        // The keys come with what the kernel knows of a TCP socket (`inet_sk_diag_fill`, net/ipv4/inet_diag.c, v6.12).
        let asked = dump((family, protocol, states), ExtensionFlags::INFO, |socket| {
            let bystander = bystander(transport, socket);
            if found.len() < MOST && (bystander.is_docker_dns() || !bystander.md5_peers.is_empty()) {
                found.push(bystander);
            }
        });
        match asked {
            Err(error) if is_missing(&error) => {}
            asked => asked?,
        }
    }
    Ok(found)
}

fn bystander(protocol: Transport, socket: &InetResponse) -> Bystander {
    let id = &socket.header.socket_id;
    let keys = socket.nlas.iter().filter_map(|attribute| match attribute {
        Nla::Other(other) if other.kind() == INET_DIAG_MD5SIG => {
            let mut keys = vec![0; other.value_len()];
            other.emit_value(&mut keys);
            Some(keys)
        }
        _ => None,
    });
    let peers = keys.flat_map(|keys| md5_peers(&keys)).collect();
    let address = SocketAddr::new(id.source_address.to_canonical(), id.source_port);
    Bystander { protocol, address, md5_peers: peers }
}

/// The peers of an array of `struct tcp_diag_md5sig` (include/uapi/linux/inet_diag.h): family, length of the prefix, length of the
/// key, address, key.
fn md5_peers(keys: &[u8]) -> Vec<IpNet> {
    const LENGTH: usize = 100;
    let peer = |key: &[u8]| {
        let v6: [u8; 16] = key.get(4..20)?.try_into().ok()?;
        let v4: [u8; 4] = key.get(4..8)?.try_into().ok()?;
        let address = if i32::from(key[0]) == AF_INET { IpAddr::from(v4) } else { IpAddr::from(v6) };
        IpNet::new(address, key[1]).ok().map(|net| net.trunc())
    };
    keys.chunks_exact(LENGTH).filter_map(peer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read_and_keys_are_not() {
        let key = |family: i32, length: u8, address: &[u8]| {
            let mut key = vec![u8::try_from(family).unwrap(), length, 6, 0];
            key.extend_from_slice(address);
            key.resize(20, 0);
            key.extend_from_slice(b"secret");
            key.resize(100, 0);
            key
        };
        let v6 = "fd77::2".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let keys = [key(AF_INET, 24, &[10, 0, 0, 9]), key(AF_INET6, 128, &v6), vec![0; 7]].concat();
        let peers: Vec<_> = md5_peers(&keys).iter().map(ToString::to_string).collect();
        assert_eq!(peers, ["10.0.0.0/24", "fd77::2/128"]);
    }

    #[test]
    fn an_unspecified_address_gets_what_is_for_its_family_or_both() {
        for (own, to, gets) in [
            ("0.0.0.0:179", "10.0.0.1:179", true),
            ("0.0.0.0:179", "10.0.0.1:80", false),
            ("0.0.0.0:179", "[fd00::1]:179", false),
            ("[::]:179", "10.0.0.1:179", true),
            ("10.0.0.1:179", "10.0.0.1:179", true),
            ("10.0.0.1:179", "10.0.0.2:179", false),
        ] {
            let bystander =
                Bystander { protocol: Transport::Tcp, address: own.parse().unwrap(), md5_peers: Vec::new() };
            assert_eq!(bystander.may_get(Transport::Tcp, to.parse().unwrap()), gets, "{own} {to}");
            assert!(!bystander.may_get(Transport::Udp, to.parse().unwrap()));
        }
    }
}
