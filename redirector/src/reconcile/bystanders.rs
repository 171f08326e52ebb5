//! Sockets that a rule is turned against without its author meaning it, as [`crate::netns::bystanders`] finds them. Which rule
//! decides about what is sent to them is asked of the compiled rules: a rule before it may leave it alone.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use redirector_ebpf::{Action, Flow};

use crate::{
    config::{RuleName, Source},
    kernel,
    netns::{Bystander, Survey},
    steer::{Found, RuleState, RuleTable},
};

/// Local addresses that are tried of a socket that is bound to all. Whoever is in the namespace decides how many there are.
const MOST_ADDRESSES: usize = 16;

/// Peers of one socket that are tried.
const MOST_PEERS: usize = 16;

/// What of these rules surprises because of such sockets: the rule, and a sentence.
pub(crate) fn taken_from(
    found: &Found,
    table: &RuleTable,
    rules: &[Arc<RuleState>],
) -> Vec<(RuleName, String)> {
    let mut told = Vec::new();
    for bystander in &found.bystanders {
        let flows = flows(bystander, &found.survey, table);
        let deciding: BTreeSet<_> = flows.iter().filter_map(|flow| takes(table, flow, bystander)).collect();
        for rule in rules.iter().filter(|rule| deciding.contains(&rule.index)) {
            told.push((rule.rule.name.clone(), sentence(bystander)));
        }
    }
    told
}

fn sentence(bystander: &Bystander) -> String {
    let Bystander { protocol, address, md5_peers } = bystander;
    if bystander.is_docker_dns() {
        return format!(
            "the container's name server of Docker listens there at {protocol} {address}, and the rule takes what is sent to it; leave it \
             out by `--except {protocol}:{}:*`",
            address.ip()
        );
    }
    let mut peers: Vec<_> = md5_peers.iter().take(MOST_PEERS).map(|net| Source(*net).to_string()).collect();
    if md5_peers.len() > peers.len() {
        peers.push("more".into());
    }
    let peers = peers.join(" ");
    format!(
        "a listener there at {address} has TCP-MD5 keys for {peers}, whose connections the rule takes and redirector cannot accept: the \
         kernel drops what they send; leave them to the listener by `--except tcp:{}`",
        address.port()
    )
}

/// The rule that takes a packet from such a socket.
fn takes(table: &RuleTable, flow: &Flow, bystander: &Bystander) -> Option<u32> {
    let decision = table.rule_set.image.decide(flow)?;
    let is_taken = match decision.action {
        action if action == Action::Pass as u32 => false,
        action if action == Action::Steer as u32 => true,
        // Whoever refuses peers that sign, or drops what they send, means it. A name server is seldom meant.
        _ => bystander.is_docker_dns(),
    };
    is_taken.then_some(decision.rule)
}

/// Packets that such a socket would get.
fn flows(bystander: &Bystander, survey: &Survey, table: &RuleTable) -> Vec<Flow> {
    let port = bystander.address.port();
    let interfaces: BTreeSet<_> = table.interfaces().collect();
    let mut flows = Vec::new();
    for peer in peers(bystander, table) {
        for local in locals(bystander, peer, survey) {
            let flow = kernel::flow(SocketAddr::new(peer, 1), SocketAddr::new(local, port));
            let flow = Flow { protocol: bystander.protocol.number(), ..flow };
            flows.push(flow);
            flows.extend(interfaces.iter().map(|index| Flow { ingress_ifindex: *index, ..flow }));
        }
    }
    flows
}

/// One address of each network that peers are in, and of each part of it that a rule names.
fn peers(bystander: &Bystander, table: &RuleTable) -> Vec<IpAddr> {
    if bystander.is_docker_dns() {
        return vec![Ipv4Addr::LOCALHOST.into()];
    }
    let networks = bystander.md5_peers.iter().take(MOST_PEERS);
    let named = |net| {
        let sources = table.rules().iter().flat_map(|state| &state.rule.from);
        sources.map(|source| source.0).filter(move |source| ipnet::IpNet::contains(net, source))
    };
    let networks = networks.flat_map(|net| std::iter::once(*net).chain(named(net)));
    networks.map(|net| net.addr()).take(MOST_PEERS).collect()
}

/// The addresses of the namespace that a peer may send to.
fn locals(bystander: &Bystander, peer: IpAddr, survey: &Survey) -> Vec<IpAddr> {
    let own = bystander.address.ip();
    if !own.is_unspecified() {
        return if own.is_ipv4() == peer.is_ipv4() { vec![own] } else { Vec::new() };
    }
    if peer.is_loopback() {
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        return loopback.into_iter().filter(|one| one.is_ipv4() == peer.is_ipv4()).collect();
    }
    let local = survey.local.iter().map(ipnet::IpNet::addr);
    let local = local.filter(|one| one.is_ipv4() == peer.is_ipv4() && !one.is_loopback());
    local.take(MOST_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Rule, RuleSpec, Transport},
        dial::Whereabouts,
        intent::testing::{check, name},
        kernel::RuleSets,
        reconcile::testing::found,
    };

    fn state(index: usize, text: &str) -> Arc<RuleState> {
        let (named, spec) = text.split_once(' ').expect("a name and a rule");
        let spec: RuleSpec = serde_json::from_str(spec).expect("a rule");
        let rule: Rule = spec.named(name(named));
        let index = u32::try_from(index).expect("few rules");
        Arc::new(RuleState::new(Arc::new(rule), (index, 0), Whereabouts::default()))
    }

    /// Each line: a socket with its peers, rules, and those that are told of it. The namespace's addresses are 10.0.0.1 and fd00::1.
    #[test]
    fn the_rule_that_decides_about_such_a_socket_is_told_and_no_other() {
        const ALL: &str = r#"all {"match": ["tcp:*"], "to": ["127.0.0.1:1"]}"#;
        const PASS: &str = r#"bgp {"match": ["tcp:179"], "to": ["pass"]}"#;
        let cases = [
            ["tcp 0.0.0.0:179 10.0.0.2/32", ALL, "all"],
            ["tcp [::]:179 fd00::2/128", ALL, "all"],
            ["tcp [::]:179 10.0.0.0/24", ALL, "all"],
            ["tcp 10.0.0.1:179 10.0.0.2/32", ALL, "all"],
            ["tcp 127.0.0.1:179 127.0.0.1/32", ALL, "all"],
            // Another rule leaves it alone, or it is no traffic of the rule's.
            ["tcp 0.0.0.0:179 10.0.0.2/32", &format!("{ALL}\n{PASS}"), ""],
            ["tcp 0.0.0.0:179 10.0.0.2/32", r#"a {"match": ["tcp:80"], "to": ["127.0.0.1:1"]}"#, ""],
            [
                "tcp 0.0.0.0:179 10.0.0.2/32",
                r#"a {"match": ["tcp:*"], "except": ["tcp:179"], "to": ["127.0.0.1:1"]}"#,
                "",
            ],
            [
                "tcp 0.0.0.0:179 10.0.0.2/32",
                r#"a {"match": ["tcp:*"], "from": ["10.9.0.0/16"], "to": ["127.0.0.1:1"]}"#,
                "",
            ],
            [
                "tcp 0.0.0.0:179 10.0.0.0/8",
                r#"a {"match": ["tcp:*"], "from": ["10.9.0.0/16"], "to": ["127.0.0.1:1"]}"#,
                "a",
            ],
            ["tcp 0.0.0.0:179 10.0.0.2/32", r#"a {"match": ["tcp:[fd00::1]:*"], "to": ["127.0.0.1:1"]}"#, ""],
            ["tcp 0.0.0.0:179 10.0.0.2/32", r#"a {"match": ["tcp:10.0.0.1:*"], "to": ["127.0.0.1:1"]}"#, "a"],
            ["tcp 0.0.0.0:179 10.0.0.2/32", r#"a {"match": ["tcp:*"], "to": ["reject"]}"#, ""],
            ["tcp 127.0.0.11:40000", ALL, "all"],
            ["tcp 127.0.0.11:40000", r#"a {"match": ["any:*"], "to": ["reject"]}"#, "a"],
            ["udp 127.0.0.11:40000", r#"a {"match": ["any:*"], "to": ["drop"]}"#, "a"],
            ["udp 127.0.0.11:40000", ALL, ""],
            ["udp 127.0.0.11:40000", r#"a {"match": ["udp:*"], "to": ["pass"]}"#, ""],
            [
                "tcp 127.0.0.11:40000",
                r#"a {"match": ["tcp:*"], "except": ["tcp:127.0.0.11:*"], "to": ["127.0.0.1:1"]}"#,
                "",
            ],
        ];
        check(&cases, |case| {
            let mut words = case[0].split(' ');
            let protocol = if words.next() == Some("udp") { Transport::Udp } else { Transport::Tcp };
            let address = words.next().expect("an address").parse().expect("an address");
            let md5_peers = words.map(|net| net.parse().expect("a network")).collect();
            let mut seen = found(7, None);
            seen.bystanders = vec![Bystander { protocol, address, md5_peers }];
            let rules: Vec<_> = case[1].lines().enumerate().map(|(index, text)| state(index, text)).collect();
            let table = RuleTable::new(rules.clone(), &RuleSets::default()).expect("it compiles");
            let told = taken_from(&seen, &table, &rules);
            told.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ")
        });
    }
}
