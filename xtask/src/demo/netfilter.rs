//! Counts what netfilter holds in a namespace: nftables by netlink, legacy iptables by /proc.

use std::{fs, io, process::Command};

use anyhow::{Context as _, Result, bail};
use netlink_packet_core::{
    ErrorBuffer, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable as _,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    nftables::{NfTablesMessage, RuleMessage, TableMessage},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::interrupt::Interrupt;

/// Names of the tables of legacy iptables, one a line. Absent while the kernel has no such table anywhere.
const LEGACY_TABLES: [&str; 3] =
    ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names", "/proc/net/arp_tables_names"];

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Netfilter {
    /// Every chain, set and rule of nftables is in a table.
    pub(crate) nftables_tables: usize,
    pub(crate) nftables_rules: usize,
    pub(crate) iptables_tables: usize,
}

/// Counts where `inside` runs, a command of this program without arguments.
pub(crate) fn count(interrupt: &Interrupt, mut inside: Command) -> Result<Netfilter> {
    let counted = interrupt.call(inside.arg("netfilter"), std::time::Duration::from_secs(10))?;
    serde_json::from_str(&counted).with_context(|| format!("parse the netfilter counts: {counted:?}"))
}

/// Counts in the namespace of this process.
pub(crate) fn run() -> Result<()> {
    let mut iptables_tables = 0;
    for path in LEGACY_TABLES {
        match fs::read_to_string(path) {
            Ok(names) => iptables_tables += names.lines().count(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read `{path}`")),
        }
    }
    let tables = |attributes| TableMessage { attributes };
    let rules = |attributes| RuleMessage { attributes };
    let nftables_tables =
        dump(NfTablesMessage::GetTable(tables(vec![])), NfTablesMessage::NewTable(tables(vec![])))?;
    let nftables_rules =
        dump(NfTablesMessage::GetRule(rules(vec![])), NfTablesMessage::NewRule(rules(vec![])))?;
    let counted = Netfilter { nftables_tables, nftables_rules, iptables_tables };
    println!("{}", serde_json::to_string(&counted).context("serialise the counts")?);
    Ok(())
}

/// Asks for a dump and counts the answers of the type of `answer`. Their content is not looked at, so that an
/// expression that the parser does not know cannot hide a rule.
fn dump(request: NfTablesMessage, answer: NfTablesMessage) -> Result<usize> {
    let all_families = || NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let answer = NetfilterMessage::new(all_families(), answer).message_type();
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message =
        NetlinkMessage::new(header, NetlinkPayload::from(NetfilterMessage::new(all_families(), request)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = Socket::new(NETLINK_NETFILTER).context("open a NETLINK_NETFILTER socket")?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0), 0).context("send a dump request to nf_tables")?;
    let mut count = 0;
    loop {
        let (datagram, _) = socket.recv_from_full().context("receive from nf_tables")?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let packet = NetlinkBuffer::new_checked(rest).context("parse an answer of nf_tables")?;
            match packet.message_type() {
                NLMSG_DONE => return Ok(count),
                NLMSG_ERROR => {
                    let error =
                        ErrorBuffer::new_checked(packet.payload()).context("parse an error of nf_tables")?;
                    match error.code().map(|code| Errno::from_raw(-code.get())) {
                        // nfnetlink says so when it has no subsystem nf_tables: nothing can be there.
                        Some(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(0),
                        code => bail!("nf_tables refused a dump: {code:?}"),
                    }
                }
                kind if kind == answer => count += 1,
                kind => bail!("nf_tables answered a dump with a message of type {kind:#x}"),
            }
            // Messages are aligned to 4 bytes.
            let length = (packet.length() as usize).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}
