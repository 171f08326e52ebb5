//! What was found, in words.

use std::{
    os::fd::AsFd as _,
    sync::{Arc, PoisonError},
};

use nix::{errno::Errno, libc};
use redirector_ebpf::Unavailable;

use crate::{
    config::FlowSpec,
    control::{
        BystanderKind, BystanderView, FibView, IngressView, NetfilterView, Runs, SocketKind, SocketView,
        Verdict,
    },
    kernel::{Fate, Heard, Outcome},
    lease::Lease,
    listener,
    netns::{Arrival, BaseChains, Bystander, Delivery, Family, Netfilter},
    steer::{Steered, is_healthy},
};

pub(crate) fn ingress(arrival: &Arrival) -> IngressView {
    IngressView { interface: arrival.interface.clone(), index: arrival.index.0, by: arrival.by.into() }
}

pub(crate) fn delivery(flow: &FlowSpec, arrival: &Arrival) -> FibView {
    let (source, destination) = (flow.source.ip(), flow.destination.ip());
    let interface = &arrival.interface;
    let (kernel, text) = match arrival.delivery {
        Delivery::Local => ("local".to_owned(), format!("{destination} is delivered locally")),
        Delivery::Elsewhere(kind) => {
            (kind.to_owned(), format!("{destination} is not local there: its route is of type {kind}"))
        }
        Delivery::Errno(errno) => {
            let said = Errno::from_raw(errno);
            let text = match errno {
                libc::EINVAL if destination.is_ipv6() => {
                    format!("refused by a blackhole route to {destination}")
                }
                libc::EINVAL => format!(
                    "refused by a blackhole route, or as martian: no packet from {source} to {destination} comes by \
                     `{interface}`"
                ),
                _ => format!("{destination} is not local there: {}", said.desc()),
            };
            (format!("{said:?}"), text)
        }
        Delivery::Down => ("down".to_owned(), format!("nothing comes by `{interface}`: it is down")),
        Delivery::ReversePath => (
            "rp_filter".to_owned(),
            format!("dropped by rp_filter: an answer to {source} would not go by `{interface}`"),
        ),
        Delivery::Loopback => {
            ("loopback".to_owned(), format!("dropped: a loopback address does not come by `{interface}`"))
        }
        Delivery::ForeignSource => (
            "foreign_source".to_owned(),
            format!("nothing from {source} comes by `{interface}`: the namespace has no such address"),
        ),
        Delivery::OwnSource => (
            "own_source".to_owned(),
            format!(
                "refused as martian: {source} is the namespace's own, and what it sends itself does not come by \
                 `{interface}`; leave out `dev`"
            ),
        ),
    };
    FibView { local: arrival.delivery == Delivery::Local, kernel, text }
}

pub(crate) fn verdict(heard: &Heard) -> Verdict {
    match (heard.outcome, heard.fate) {
        _ if heard.own_listener => Verdict::Reject,
        (Outcome::Unmatched, _) => Verdict::Unmatched,
        (Outcome::Steered, _) => Verdict::Steer,
        (Outcome::Passed | Outcome::Bypassed, _) | (Outcome::Unavailable(_), Fate::Lookup) => Verdict::Pass,
        (Outcome::Rejected, _) | (Outcome::Unavailable(_), Fate::Refused) => Verdict::Reject,
        (Outcome::Dropped, _) | (Outcome::Unavailable(_), Fate::Socket(_)) => Verdict::Drop,
    }
}

/// What another program could do about it (`BPF_PROG_SK_LOOKUP_RUN_ARRAY`, include/linux/filter.h, v6.12: the last socket that a
/// program selects gets the packet; a refusal counts when none is selected).
pub(crate) fn could(runs: Runs, verdict: Verdict) -> &'static str {
    match (verdict, runs) {
        (Verdict::Steer | Verdict::Drop, Runs::Before) => {
            "a socket that it selects keeps the packet, and ours is not put in its place"
        }
        (Verdict::Steer | Verdict::Drop, _) => {
            "it can put another socket in the place of ours (BPF_SK_LOOKUP_F_REPLACE)"
        }
        (Verdict::Reject, _) => "a socket that it selects gets the packet in spite of our refusal",
        (Verdict::Pass | Verdict::Unmatched | Verdict::Unreached, _) => {
            "it can select a socket, or refuse the packet"
        }
    }
}

/// The packet filters of the namespace, and what they could do.
pub(crate) fn netfilter(Netfilter { base_chains, legacy_tables }: Netfilter) -> NetfilterView {
    let mut view = NetfilterView::default();
    match base_chains {
        Ok(BaseChains { chains, left_out }) => {
            view.base_chains = chains.into_iter().map(Into::into).collect();
            view.base_chains_left_out = left_out;
        }
        Err(why) => view.base_chains_unknown = Some(why),
    }
    match legacy_tables {
        Ok(tables) => view.legacy_tables = tables.into_iter().map(Into::into).collect(),
        Err(why) => view.legacy_tables_unknown = Some(why),
    }
    view
}

/// Sockets of others that a packet may be meant for, and that do not get it.
pub(crate) fn taken_from(bystanders: &[Bystander], flow: &FlowSpec, verdict: Verdict) -> Vec<BystanderView> {
    let is_taken = matches!(verdict, Verdict::Steer | Verdict::Reject | Verdict::Drop);
    let meant = bystanders.iter().filter(|one| is_taken && one.may_get(flow.protocol, flow.destination));
    let view = |one: &Bystander| {
        let (what, text) = if one.is_docker_dns() {
            (
                BystanderKind::DockerDns,
                "it is the container's name server of Docker, and the rule takes what is sent to it",
            )
        } else if verdict == Verdict::Steer && one.has_md5_key_for(flow.source.ip()) {
            let text = "it has a TCP-MD5 key for this client, and redirector's listener has none: the kernel drops what the client signs";
            (BystanderKind::TcpMd5, text)
        } else {
            return None;
        };
        Some(BystanderView { address: one.address.to_string(), what, text: text.into() })
    };
    meant.filter_map(view).collect()
}

pub(crate) fn reason_name(reason: Unavailable) -> &'static str {
    let named = Unavailable::ALL.into_iter().find(|(one, _)| *one == reason);
    named.map_or("other", |(_, name)| name)
}

/// Who gets it.
pub(crate) fn socket(
    netns: &Steered,
    leases: &[Arc<Lease>],
    flow: &FlowSpec,
    heard: &Heard,
) -> Option<SocketView> {
    let Fate::Socket(cookie) = heard.fate else { return None };
    let family = if flow.destination.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 };
    let view = |what, healthy| SocketView { cookie, what, family, address: None, pid: None, healthy };
    for one in netns.listeners() {
        if listener::cookies((*one.get()).as_fd()).is_ok_and(|(own, _)| own == cookie) {
            let address = one.address().ok().map(|address| address.to_string());
            return Some(SocketView {
                address,
                ..view(SocketKind::Listener, is_healthy(&netns.instance, &one))
            });
        }
    }
    for lease in leases {
        if let Some(socket) = lease.in_slots().into_iter().find(|one| one.cookie == cookie) {
            let address = Some(socket.address.to_string());
            // The kernel gives only what listens; where it could not be asked, that is not known.
            return Some(SocketView { address, pid: lease.pid, ..view(SocketKind::HandOff, true) });
        }
    }
    let black_hole = netns.black_hole.lock().unwrap_or_else(PoisonError::into_inner);
    Some(match black_hole.health_of(cookie) {
        Some(healthy) => view(SocketKind::BlackHole, healthy),
        None => view(SocketKind::Other, false),
    })
}
