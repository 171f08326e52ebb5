//! Why the kernel has dropped TCP segments for listeners of a namespace. Called inside it, see [`super::enter()`].

use std::{collections::BTreeMap, fs, io};

/// Counters of `TcpExt` that grow where a SYN has reached a listener and no connection comes of it.
const COUNTERS: [&str; 5] =
    ["ListenOverflows", "TCPReqQFullDrop", "TCPMD5Unexpected", "TCPMD5Failure", "TCPAOKeyNotFound"];

/// Those of the counters of this thread's namespace that are not zero, since it was made.
///
/// # Errors
///
/// When `/proc/thread-self/net/netstat` cannot be read.
pub fn segments_dropped() -> io::Result<BTreeMap<String, u64>> {
    Ok(counters(&fs::read_to_string("/proc/thread-self/net/netstat")?))
}

/// Pairs of lines: names, and their values.
fn counters(text: &str) -> BTreeMap<String, u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let pairs = names.split_ascii_whitespace().zip(values.split_ascii_whitespace());
    pairs
        .filter(|(name, _)| COUNTERS.contains(name))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .filter(|(_, value)| *value > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_are_not_zero_are_told_by_their_name() {
        let text = "IpExt: A\nIpExt: 1\nTcpExt: Other ListenOverflows TCPMD5Unexpected\nTcpExt: 9 0 3\n";
        assert_eq!(counters(text), BTreeMap::from([("TCPMD5Unexpected".to_owned(), 3)]));
        assert_eq!(counters(""), BTreeMap::new());
        assert!(segments_dropped().is_ok());
    }
}
