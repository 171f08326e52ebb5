//! `/proc/net/tcp`, where the kernel has no inet_diag: a line for each socket, whatever its state.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::ends::{Ends, State};

/// Lines of each family that are looked at, so that it takes no longer the more there are. It takes some 100 ms.
const LOOKED_AT: usize = 100_000;

/// Visits the connections of this thread's namespace that are in a state.
pub(super) fn visit(state: State, mut each: impl FnMut(Ends)) -> io::Result<()> {
    for table in ["tcp", "tcp6"] {
        let file = match File::open(format!("/proc/thread-self/net/{table}")) {
            // A kernel without IPv6 has no such file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            result => result?,
        };
        for line in BufReader::new(file).lines().skip(1).take(LOOKED_AT) {
            ends(&line?, state).into_iter().for_each(&mut each);
        }
    }
    Ok(())
}

/// Both ends of a line, when it is in this state.
fn ends(line: &str, state: State) -> Option<Ends> {
    let number = match state {
        State::Established => "01",
        State::SynReceived => "03",
    };
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote) = (fields.next()?, fields.next()?);
    if fields.next()? != number { None } else { Some(Ends { local: end(local)?, remote: end(remote)? }) }
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
    fn a_line_has_both_ends_of_a_connection_in_its_state() {
        const V4: &str = "   1: 0100007F:1F90 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1";
        const V6: &str = "  2: 000080FE00000000000000000100000A:0050 000080FE00000000000000000200000A:D2F0 01 0:0 00:0 0 0 0 1";
        const MAPPED: &str = "  2: 0000000000000000FFFF00000100000A:0050 0000000000000000FFFF00000200000A:D2F0 01 0:0 00:0 0 0 0 1";
        for (line, local, remote) in [
            (V4, "127.0.0.1:8080", "127.0.0.1:54000"),
            (V6, "[fe80::a00:1]:80", "[fe80::a00:2]:54000"),
            (MAPPED, "10.0.0.1:80", "10.0.0.2:54000"),
        ] {
            let found = Some(Ends { local: local.parse().unwrap(), remote: remote.parse().unwrap() });
            for (number, state) in [("01", State::Established), ("03", State::SynReceived)] {
                let line = line.replace(" 01 ", &format!(" {number} "));
                assert_eq!(ends(&line, state), found, "{line}");
                let other = line.replace(&format!(" {number} "), " 0A ");
                assert_eq!(ends(&other, state), None, "{other}");
            }
        }
    }
}
