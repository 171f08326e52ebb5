//! `redirector explain`.

use std::{fmt, io, path::Path};

use super::{
    args,
    exit::Failure,
    file_rules::FileRules,
    health::{UNACCEPTED, fares, last_failure, words},
    list::percent_encode,
    output,
};
use crate::{
    config::Target,
    control::{
        self, BaseChainView, BystanderView, ExplainRequest, ExplainedRule, Explanation, ForeignView,
        IngressBy, LegacyTableView, NamespaceState, NetfilterView, OnUnavailableView, ReasonView, ShadowView,
        ShadowedBy, Shadows, SocketKind, SocketView, Verdict,
    },
    netns::Family,
    text::escaped,
};

/// Rules that are named where others never decide because of them.
const MOST_NAMES: usize = 20;

pub(super) async fn explain(socket: &Path, command: args::Explain) -> Result<(), Failure> {
    let flow = if command.shadowed { None } else { Some(command.flow()) };
    let flow = flow.transpose().map_err(|error| {
        let failure = Failure::usage(error.to_string());
        match command.swallowed() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })?;
    let rules = command.config.as_deref().map(|file| FileRules::read(file, &command.target)).transpose()?;
    let Some(flow) = flow else {
        let answer = match rules {
            Some(rules) => rules.shadows(&command.target).map_err(Failure::text)?,
            None => shadows(socket, &command.target).await?,
        };
        output::print(
            |out| {
                if command.json { output::json(out, &answer) } else { print_shadows(out, &answer) }
            },
        )?;
        return Ok(());
    };
    let args::Explain { target, all_reasons, json, .. } = command;
    let answer = match rules {
        Some(rules) => rules.explain(&target, flow, all_reasons)?,
        None => {
            let request = ExplainRequest { target, flow, all_reasons };
            control::call(socket, "/v1/explain", &request).await?
        }
    };
    output::print(|out| if json { output::json(out, &answer) } else { print(out, &answer) })?;
    Ok(())
}

async fn shadows(socket: &Path, target: &Target) -> Result<Shadows, Failure> {
    let path = format!("/v1/shadowed?target={}", percent_encode(&target.to_string()));
    Ok(control::get(socket, &path).await?)
}

fn print(out: &mut impl io::Write, answer: &Explanation) -> io::Result<()> {
    writeln!(out, "{}", verdict(answer))?;
    let mut line = |name: &str, what: fmt::Arguments<'_>| writeln!(out, "  {name:<12} {what}");
    let ingress = &answer.ingress;
    let by = match ingress.by {
        IngressBy::Assumed => ", which is assumed: an answer would go there",
        IngressBy::Inside => {
            ": it is sent inside, and comes by the interface that has the destination's address"
        }
        IngressBy::Named | IngressBy::Unknown => "",
    };
    let flow = answer.flow.to_string();
    let flow = shown(&flow);
    if ingress.interface.is_empty() {
        line("packet", format_args!("{flow}, by no interface that a rule names"))?;
    } else {
        line("packet", format_args!("{flow}, by {}{by}", shown(&ingress.interface)))?;
    }
    line("sender sees", format_args!("{}", answer.peer_sees))?;
    if let Some(rule) = &answer.rule {
        line("rule", format_args!("{}", described(rule)))?;
        if let Some(unavailable) = &rule.on_unavailable {
            line("unavailable", format_args!("{}", on_unavailable(unavailable)))?;
        }
        if let Some(last) = &rule.health.last_failure {
            line("dial failed", format_args!("{}", last_failure(last)))?;
        }
    }
    if let Some(socket) = &answer.socket {
        line("socket", format_args!("{}", owner(socket)))?;
    }
    if let Some(decided) = &answer.decided_by
        && let Some(why) = &decided.why
    {
        line("decided", format_args!("by the rule set, not by the kernel: {}", shown(why)))?;
    }
    for ReasonView { rule, text, .. } in &answer.reasons {
        line("not by", format_args!("{rule}: {}", shown(text)))?;
    }
    if answer.reasons_left_out > 0 {
        line("not by", format_args!("{} more rules; --all-reasons has them", answer.reasons_left_out))?;
    }
    for ForeignView { id, name, runs, could } in &answer.foreign_programs {
        line("but", format_args!("program {id} `{}` runs {runs} ours: {could}", name.escape_debug()))?;
    }
    for BystanderView { address, what: _, text } in &answer.bystanders {
        line("but", format_args!("it is for a socket at {}: {}", shown(address), shown(text)))?;
    }
    unaccepted(&mut line, answer)?;
    answer
        .netfilter
        .as_ref()
        .map_or(Ok(()), |filters| not_run(&mut line, filters, answer.flow.source.is_ipv4()))
}

/// Writes a line of what is told of a packet: its name, and what.
type Line<'a> = &'a mut dyn FnMut(&str, fmt::Arguments<'_>) -> io::Result<()>;

/// What was steered by the rule and not accepted, with what the kernel tells of it.
fn unaccepted(line: Line<'_>, answer: &Explanation) -> io::Result<()> {
    let Some(rule) = &answer.rule else { return Ok(()) };
    let (Some(steered), Some(accepted)) = (rule.steered, rule.health.accepted) else { return Ok(()) };
    if steered > accepted {
        let text = format_args!(
            "of {steered} look-ups that rule {} steered {accepted} were accepted; likely {UNACCEPTED}",
            rule.name
        );
        line("but", text)?;
        for (counter, count) in &answer.segments_dropped {
            line(
                "",
                format_args!("since it was made the namespace has dropped {}", dropped(counter, *count)),
            )?;
        }
    }
    Ok(())
}

/// What a counter of the kernel means.
fn dropped(counter: &str, count: u64) -> String {
    let what = match counter {
        "ListenOverflows" => "for a full queue of accepted connections",
        "TCPReqQFullDrop" => "for a full queue of handshakes",
        "TCPMD5Unexpected" => "signed with TCP-MD5 for a socket without a key",
        "TCPMD5Failure" => "signed with TCP-MD5 by a wrong key",
        "TCPAOKeyNotFound" => "signed with TCP-AO for a socket without a key",
        _ => "",
    };
    format!("{count} segments {what} ({})", shown(counter))
}

/// The packet filters, which were not run: those that may see a packet of this family.
fn not_run(line: Line<'_>, filters: &NetfilterView, is_ipv4: bool) -> io::Result<()> {
    let NetfilterView {
        base_chains,
        base_chains_left_out,
        base_chains_unknown,
        legacy_tables,
        legacy_tables_unknown,
    } = filters;
    let name = "not run";
    let other = if is_ipv4 { "ip6" } else { "ip" };
    let chains: Vec<_> =
        base_chains.iter().filter(|one| one.family != other && (is_ipv4 || one.family != "arp")).collect();
    for chain in chains.iter().take(MOST_NAMES) {
        let BaseChainView { family, table, chain, kind, hook, priority, policy, rules, devices, could } =
            chain;
        let rules = match rules {
            0 => "no rules".to_owned(),
            1 => "1 rule".to_owned(),
            rules => format!("{rules} rules"),
        };
        let devices = if devices.is_empty() { String::new() } else { format!(", on {}", devices.join(" ")) };
        let what = format!(
            "chain {family} {table} {chain} (type {kind}, hook {hook}, priority {priority}, policy {policy}, {rules}{devices})"
        );
        line(name, format_args!("nf_tables {}: {could}", shown(&what)))?;
    }
    let more = *base_chains_left_out + chains.len().saturating_sub(MOST_NAMES) as u64;
    if more > 0 {
        line(name, format_args!("{more} more chains of nf_tables; --json has them, up to a thousand"))?;
    }
    let of_family = legacy_tables.iter().filter(|one| (one.family == Family::Ipv4) == is_ipv4);
    for LegacyTableView { family: _, table, could } in of_family {
        let program = if is_ipv4 { "iptables" } else { "ip6tables" };
        line(name, format_args!("legacy {program} table {}, if it holds rules: {could}", shown(table)))?;
    }
    for why in base_chains_unknown.iter().chain(legacy_tables_unknown) {
        line(name, format_args!("not told which packet filters there are: {}", shown(why)))?;
    }
    Ok(())
}

/// The first line.
fn verdict(answer: &Explanation) -> String {
    let Some(rule) = &answer.rule else {
        return match answer.verdict {
            Verdict::Unreached => format!("never reaches steering: {}", shown(&answer.fib.text)),
            _ if answer.own_listener => "reset: its destination is redirector's own listener".into(),
            _ => "not steered: no rule takes it".to_owned(),
        };
    };
    let name = &rule.name;
    if answer.state == NamespaceState::Detached {
        return format!("not steered: the program is not attached any more; rule {name} would take it");
    }
    if answer.own_listener {
        return "reset: its destination is redirector's own listener".into();
    }
    let to: Vec<_> = rule.to.iter().map(ToString::to_string).collect();
    let to = to.join(" ").escape_debug().to_string();
    let unavailable = match &rule.on_unavailable {
        Some(OnUnavailableView { decided: true, reason, .. }) => {
            format!(", which is unavailable ({})", words(reason.as_deref().unwrap_or("?")))
        }
        _ => String::new(),
    };
    match answer.verdict {
        _ if answer.bypassed => {
            format!("passed: it is redirector's own connection, on its way past rule {name}")
        }
        Verdict::Steer => {
            let listener = answer.socket.as_ref().and_then(|socket| socket.address.as_deref());
            let listener = listener.map(|address| format!(" (listener {address})")).unwrap_or_default();
            format!("steered by rule {name} to {to}{listener}")
        }
        Verdict::Pass => format!("passed by rule {name}{unavailable}"),
        Verdict::Reject => format!("rejected by rule {name}{unavailable}"),
        Verdict::Drop => format!("dropped by rule {name}{unavailable}"),
        Verdict::Unmatched | Verdict::Unreached => format!("not steered by rule {name}"),
    }
}

fn described(rule: &ExplainedRule) -> String {
    let ExplainedRule { name, origin, state, health, cell, .. } = rule;
    let mut text = format!("{name} ({origin}, {}), by its match {}", fares(*state, health), cell.matching);
    if let Some(from) = cell.from {
        text += &format!(" from {from}");
    }
    if let Some(interface) = &cell.interface {
        text += &format!(" by {}", interface.escape_debug());
    }
    text
}

fn on_unavailable(OnUnavailableView { action, decided, reason }: &OnUnavailableView) -> String {
    let reason = words(reason.as_deref().unwrap_or("?"));
    if *decided { format!("yes ({reason}), so {action}") } else { format!("no; if it were, {action}") }
}

fn owner(socket: &SocketView) -> String {
    let SocketView { cookie, what, family, address, pid, healthy } = socket;
    let address = address.as_deref().map(|address| format!(" at {address}")).unwrap_or_default();
    let what = match what {
        SocketKind::Listener => "the relay's listener".to_owned(),
        SocketKind::HandOff => match pid {
            Some(pid) => format!("a listener that process {pid} got"),
            None => "a listener that was handed off".to_owned(),
        },
        SocketKind::BlackHole => "one that takes nothing".to_owned(),
        SocketKind::Other => "one that is not redirector's".to_owned(),
    };
    let health = if *healthy { "" } else { "; it does not do what it is for" };
    format!("{what}{address} ({family}, cookie {cookie}){health}")
}

fn print_shadows(out: &mut impl io::Write, answer: &Shadows) -> io::Result<()> {
    let Shadows { rules, shadowed, .. } = answer;
    if shadowed.is_empty() {
        return writeln!(out, "each of {rules} rules can decide about something");
    }
    shadowed.iter().try_for_each(|shadow| writeln!(out, "{}: {}", shadow.rule, never(shadow)))
}

/// Why a rule can never decide.
pub(super) fn never(ShadowView { rule: _, why, by }: &ShadowView) -> String {
    match why {
        ShadowedBy::Rules => {
            let names: Vec<_> = by.iter().map(ToString::to_string).collect();
            let more = names.len().saturating_sub(MOST_NAMES);
            let named = names[..names.len() - more].join(", ");
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            format!("never, because of {named}{more}")
        }
        ShadowedBy::Interfaces => "never, while none of its interfaces is there".into(),
        ShadowedBy::Unknown => "could not be told in reasonable time".into(),
    }
}

fn shown(text: &str) -> impl fmt::Display {
    escaped(text)
}
