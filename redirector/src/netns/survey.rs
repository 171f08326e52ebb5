//! What `attach` wants to know of a namespace. Called inside it, see [`super::enter()`].

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::IpNet;
use nix::net::if_::InterfaceFlags;

use super::InterfaceIndex;

/// A namespace's network, as far as steering depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// Whether the loopback device is up.
    pub loopback_up: bool,
    /// `net.core.somaxconn`, which caps every backlog.
    pub somaxconn: u32,
    /// `net.ipv4.ip_local_port_range`, both ends included, which is for IPv6 too.
    pub local_ports: (u16, u16),
    /// What is delivered locally: all local routes, of all tables.
    pub local: Vec<IpNet>,
    /// All interfaces.
    pub interfaces: Vec<(String, InterfaceIndex)>,
}

impl Survey {
    /// Whether any address of a prefix is delivered locally.
    #[must_use]
    pub fn is_local(&self, prefix: &IpNet) -> bool {
        self.local.iter().any(|local| local.contains(prefix) || prefix.contains(local))
    }
}

/// Looks at the namespace of this thread.
///
/// # Errors
///
/// When `/proc` or the interfaces cannot be read.
pub fn survey() -> io::Result<Survey> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let loopback_up = interfaces
        .into_iter()
        .any(|one| one.flags.contains(InterfaceFlags::IFF_LOOPBACK | InterfaceFlags::IFF_UP));
    let somaxconn = fs::read_to_string("/proc/sys/net/core/somaxconn")?;
    let somaxconn = somaxconn.trim().parse().map_err(io::Error::other)?;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ends = range.split_ascii_whitespace().map(str::parse);
    let (Some(Ok(low)), Some(Ok(high))) = (ends.next(), ends.next()) else {
        return Err(io::Error::other(format!("ip_local_port_range is `{}`", range.trim())));
    };
    let local_ports = (low, high);
    let (local, interfaces) = (super::routes::local()?, super::interfaces()?);
    Ok(Survey { loopback_up, somaxconn, local_ports, local, interfaces })
}

/// Sockets of each family that are looked at, so that it takes no longer the more there are. It takes some 100 ms.
const SOCKETS_LOOKED_AT: usize = 100_000;

/// How many TCP connections are established whose ends `accepts` takes, the local one first; among very many sockets at
/// least how many.
///
/// # Errors
///
/// When `/proc/thread-self/net/tcp` cannot be read.
pub fn established(accepts: impl Fn(SocketAddr, SocketAddr) -> bool) -> io::Result<u64> {
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let file = match File::open(format!("/proc/thread-self/net/{table}")) {
            // A kernel without IPv6 has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        for line in BufReader::new(file).lines().skip(1).take(SOCKETS_LOOKED_AT) {
            let ends = established_ends(&line?);
            count += u64::from(ends.is_some_and(|(local, remote)| accepts(local, remote)));
        }
    }
    Ok(count)
}

/// Both ends of a line of `/proc/net/tcp` or `tcp6`, the local one first, when it is in state ESTABLISHED.
fn established_ends(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    const ESTABLISHED: &str = "01";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (fields.next()?, fields.next()?);
    if fields.next()? != ESTABLISHED { None } else { Some((end(local)?, end(remote)?)) }
}

/// One end. An IPv4-mapped address is an IPv4 one.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // 32-bit words in network byte order, printed as numbers of this machine.
    let words: Vec<[u8; 4]> = (0..address.len() / 8)
        .map(|word| u32::from_str_radix(&address[word * 8..word * 8 + 8], 16).map(u32::to_ne_bytes))
        .collect::<Result<_, _>>()
        .ok()?;
    let ip: IpAddr = match words[..] {
        [v4] => Ipv4Addr::from(v4).into(),
        [a, b, c, d] => {
            let octets: [u8; 16] = bytemuck::cast([a, b, c, d]);
            Ipv6Addr::from(octets).to_canonical()
        }
        _ => return None,
    };
    Some((ip, port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_net_tcp_are_read() {
        let line = "   1: 0100007F:1F90 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1";
        let ends = |one: &str, two: &str| Some((one.parse().unwrap(), two.parse().unwrap()));
        assert_eq!(established_ends(line), ends("127.0.0.1:8080", "127.0.0.1:54000"));
        assert_eq!(established_ends(&line.replace(" 01 ", " 0A ")), None);
        let line = "  2: 000080FE00000000000000000100000A:0050 000080FE00000000000000000200000A:D2F0 01 0:0 00:0 0 0 0 1";
        assert_eq!(established_ends(line), ends("[fe80::a00:1]:80", "[fe80::a00:2]:54000"));
        let line = "  2: 0000000000000000FFFF00000100000A:0050 0000000000000000FFFF00000200000A:D2F0 01 0:0 00:0 0 0 0 1";
        assert_eq!(established_ends(line), ends("10.0.0.1:80", "10.0.0.2:54000"));
    }

    #[test]
    fn this_namespace_can_be_surveyed() {
        let survey = survey().unwrap();
        assert!(survey.somaxconn > 0);
        assert!(!survey.loopback_up || survey.is_local(&"127.0.0.1/32".parse().unwrap()));
    }

    #[test]
    fn a_prefix_is_local_when_any_of_its_addresses_is() {
        let local = ["127.0.0.0/8", "10.0.0.1/32", "fd00::1/128"].map(|net| net.parse().unwrap()).to_vec();
        let survey = Survey {
            loopback_up: true,
            somaxconn: 4096,
            local_ports: (32_768, 60_999),
            local,
            interfaces: Vec::new(),
        };
        for (prefix, expected) in [
            ("127.0.0.1/32", true),
            ("10.0.0.0/8", true),
            ("10.0.0.2/32", false),
            ("0.0.0.0/0", true),
            ("fd00::/64", true),
            ("fd00::2/128", false),
        ] {
            assert_eq!(survey.is_local(&prefix.parse().unwrap()), expected, "{prefix}");
        }
    }

    #[test]
    fn a_connection_of_this_process_is_counted() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(established(|local, _| local == address).unwrap(), 0);
        let client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(established(|local, _| local == address).unwrap(), 1);
        drop(client);
    }
}
