//! `redirector list`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use comfy_table::{Table, presets};

use super::{
    args,
    exit::Failure,
    file::counted,
    health::{UNACCEPTED, fares, is_unaccepted, with_reasons, words},
    output,
    output::Reader,
};
use crate::{
    config::{Interface, Match, Source, Span, Target},
    control::{
        self, ConnectionCounts, DaemonCounts, DiscoverView, DrainingView, Drift, LeaseView, ListenerView,
        Listing, NamespaceView, NetnsCounts, RefusedView, RuleView, WaitingView,
    },
    observe::NotDelivered,
};

pub(super) async fn list(socket: &Path, command: args::List) -> Result<(), Failure> {
    let args::List { target, watch, json } = command;
    if watch.is_some_and(|Span(interval)| interval < LEAST_INTERVAL) {
        return Err(Failure::usage("--watch: less than 10ms from one look to the next".into()));
    }
    let path = match &target {
        None => "/v1/namespaces".to_owned(),
        Some(target) => format!("/v1/namespaces?target={}", percent_encode(&target.to_string())),
    };
    loop {
        let listing: Listing = control::get(socket, &path).await?;
        let mut text = Vec::new();
        if json {
            output::json(&mut text, &listing)?;
        } else {
            if watch.is_some() && io::stdout().is_terminal() {
                text.extend_from_slice(CLEAR);
            }
            print(&mut text, &listing)?;
            if watch.is_some() {
                writeln!(text)?;
            }
        }
        // At once: a terminal shows no half of it.
        let reader = output::print(|out| out.write_all(&text))?;
        let Some(Span(interval)) = watch.filter(|_| reader == Reader::There) else { return Ok(()) };
        tokio::time::sleep(interval).await;
    }
}

/// Each look is a request, which asks the kernel about each namespace.
const LEAST_INTERVAL: Duration = Duration::from_millis(10);

/// Home, and nothing on the screen (ECMA-48).
const CLEAR: &[u8] = b"\x1b[H\x1b[2J";

pub(super) fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

fn print(out: &mut impl io::Write, listing: &Listing) -> io::Result<()> {
    let Listing { schema: _, namespaces, waiting, discover, draining, daemon } = listing;
    if namespaces.is_empty() && waiting.is_empty() {
        writeln!(out, "no namespace is steered")?;
    }
    for (index, netns) in namespaces.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        print_namespace(out, netns)?;
    }
    for waiting in waiting {
        print_waiting(out, waiting)?;
    }
    for one in discover {
        print_discover(out, one)?;
    }
    for DrainingView { target, cookie, connections } in draining {
        writeln!(
            out,
            "\n{} (cookie {cookie}): detached, {connections} relayed connections go on",
            shown(target)
        )?;
    }
    let DaemonCounts { log_lines_lost } = daemon;
    if *log_lines_lost > 0 {
        writeln!(out, "\n{log_lines_lost} lines of the daemon's log are lost")?;
    }
    Ok(())
}

fn print_waiting(out: &mut impl io::Write, waiting: &WaitingView) -> io::Result<()> {
    let WaitingView { target, container, why, rules, set: _ } = waiting;
    let id = if container.is_empty() { String::new() } else { format!(" (container {})", short(container)) };
    writeln!(out, "\n{}{id}: waiting: {}", shown(target), why.escape_debug())?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["RULE", "MATCH", "TO"]);
    for rule in rules {
        let name = rule.name.as_ref().map(ToString::to_string).unwrap_or_default();
        let matching = traffic(&rule.matches, &rule.from, &rule.except, &rule.interfaces, rule.priority);
        table.add_row([name, matching, joined(&rule.to)]);
    }
    table.lines().try_for_each(|line| writeln!(out, " {}", line.trim_end()))
}

fn print_discover(out: &mut impl io::Write, one: &DiscoverView) -> io::Result<()> {
    let DiscoverView { engine, label, rules: _, containers, refused, why } = one;
    let count = counted(usize::try_from(*containers).unwrap_or(usize::MAX), "container");
    writeln!(out, "\n{engine}, label {}: {count}", label.to_string().escape_debug())?;
    if let Some(why) = why {
        writeln!(out, "  not told of others: {}", why.escape_debug())?;
    }
    for RefusedView { target, container, why } in refused {
        for why in why {
            writeln!(out, "  {} (container {}): {}", shown(target), short(container), why.escape_debug())?;
        }
    }
    Ok(())
}

/// What a rule takes, on one line.
fn traffic(
    matches: &[Match],
    from: &[Source],
    except: &[Match],
    interfaces: &[Interface],
    priority: i32,
) -> String {
    let mut text = joined(matches);
    if !from.is_empty() {
        text += &format!(" from {}", joined(from));
    }
    if !except.is_empty() {
        text += &format!(" except {}", joined(except));
    }
    if !interfaces.is_empty() {
        text += &format!(" by {}", joined(interfaces));
    }
    if priority != 0 {
        text += &format!(" priority {priority}");
    }
    text
}

/// The same of a rule that is in force, with what keeps it from taking anything.
fn taken_now(rule: &RuleView) -> String {
    let text = traffic(&rule.matches, &rule.from, &rule.except, &rule.interfaces, rule.priority);
    if rule.interfaces_missing.is_empty() {
        text
    } else {
        format!("{text} (not there: {})", joined(&rule.interfaces_missing))
    }
}

fn state(rule: &RuleView) -> String {
    let word = if rule.discovered { "found by label" } else { "follows" };
    let follows = rule.follows.as_ref().map(|_| word);
    let took_nothing = rule.took_nothing.then_some("took nothing yet");
    let fares = fares(rule.state, &rule.health);
    std::iter::once(&*fares).chain(follows).chain(took_nothing).collect::<Vec<_>>().join(", ")
}

/// An id as engines show it.
fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

fn shown(target: &Target) -> String {
    target.to_string().escape_debug().to_string()
}

fn print_namespace(out: &mut impl io::Write, netns: &NamespaceView) -> io::Result<()> {
    let connections = &netns.connections;
    let container = netns.container.as_deref();
    let container = container.map(|id| format!(", container {}", short(id))).unwrap_or_default();
    writeln!(out, "{} (cookie {}{container}): {}", shown(&netns.target), netns.cookie, netns.state)?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "RULE",
        "MATCH",
        "TO",
        "STATE",
        "ORIGIN",
        "STEERED",
        "PASSED",
        "REJECTED",
        "DROPPED",
        "BYPASSED",
        "UNAVAILABLE",
        "FAILED",
    ]);
    for rule in &netns.rules {
        let counters = &rule.counters;
        table.add_row([
            rule.name.to_string(),
            taken_now(rule),
            joined(&rule.to),
            state(rule),
            rule.origin.to_string(),
            counters.steered.to_string(),
            counters.passed.to_string(),
            counters.rejected.to_string(),
            counters.dropped.to_string(),
            counters.bypassed.to_string(),
            with_reasons(counters.unavailable, &counters.unavailable_reasons),
            with_reasons(rule.health.failed.values().sum(), &rule.health.failed),
        ]);
    }
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    for rule in &netns.rules {
        if let Some(lease) = &rule.lease {
            print_lease(out, rule, lease)?;
        }
    }
    let NetnsCounts { unmatched, own_listener } = netns.counters;
    if unmatched > 0 {
        writeln!(out, "  unmatched: {unmatched}")?;
    }
    if own_listener > 0 {
        writeln!(out, "  refused at a program's own listener: {own_listener}")?;
    }
    let failed: u64 = connections.failed.values().sum();
    writeln!(
        out,
        "  connections: {} active, {} accepted, {} relayed, {} failed; {} bytes from clients, {} from destinations, {}",
        connections.active,
        connections.accepted,
        connections.relayed,
        with_reasons(failed, &connections.failed),
        connections.bytes_in,
        connections.bytes_out,
        bytes_lost(connections),
    )?;
    print_unaccepted(out, netns)?;
    for listener in netns.listeners.iter().filter(|listener| !listener.healthy) {
        writeln!(out, "  listener {} {} is being revived", listener.family, listener.address)?;
    }
    let Drift { listeners_revived, slots_restored, links_restored } = netns.drift;
    if listeners_revived + slots_restored + links_restored > 0 {
        write!(out, "  mended: {listeners_revived} listeners revived, {slots_restored} slots restored")?;
        if links_restored > 0 {
            write!(out, ", {links_restored} times attached again")?;
        }
        writeln!(out)?;
    }
    for program in &netns.foreign_programs {
        writeln!(
            out,
            "  another sk_lookup program: id {}, name `{}`",
            program.id,
            program.name.escape_debug()
        )?;
    }
    Ok(())
}

/// What was steered, or accepted, and did not become a connection of a rule.
fn print_unaccepted(out: &mut impl io::Write, netns: &NamespaceView) -> io::Result<()> {
    for rule in &netns.rules {
        let steered = rule.counters.steered;
        let Some(accepted) = rule.health.accepted.filter(|accepted| is_unaccepted(steered, *accepted)) else {
            continue;
        };
        let of = if accepted == 0 { "none was".into() } else { format!("{accepted} were") };
        writeln!(
            out,
            "  rule {}: of {steered} look-ups that it steered {of} accepted; likely {UNACCEPTED}",
            rule.name
        )?;
    }
    let unattributed = NotDelivered::Unattributed.name();
    if let Some(count) = netns.connections.failed.get(unattributed) {
        writeln!(
            out,
            "  {count} were accepted, and {}: likely a packet filter has given them to redirector's listener for another port \
             (TPROXY), or the rules have changed meanwhile",
            words(unattributed)
        )?;
    }
    Ok(())
}

/// What is unusual about a lease: it goes on without its process, or lacks a listener.
fn print_lease(out: &mut impl io::Write, rule: &RuleView, lease: &LeaseView) -> io::Result<()> {
    let RuleView { name, on_unavailable, .. } = rule;
    let LeaseView { pid: _, listeners, without, holders } = lease;
    if let Some(holders) = holders {
        let who = match holders[..] {
            [] => "somebody who cannot be seen holds".to_owned(),
            [one] => format!("process {one} holds"),
            _ => format!("processes {} hold", joined(holders).replace(' ', ", ")),
        };
        writeln!(out, "  {name}: its program has ended, and {who} its listeners")?;
    }
    let decides = format!("on_unavailable ({on_unavailable}) decides");
    for listener in listeners {
        if let Some(why) = &listener.why {
            let ListenerView { family, address, .. } = listener;
            writeln!(out, "  {name}: listener {family} {address}: {}; {decides}", why.escape_debug())?;
        }
    }
    match without[..] {
        [] => Ok(()),
        [family] => writeln!(out, "  {name}: its program does not listen for {family}; {decides}"),
        _ => writeln!(out, "  {name}: its program has not listened yet; {decides}"),
    }
}

/// `0 bytes lost`, or by direction.
fn bytes_lost(connections: &ConnectionCounts) -> String {
    match (connections.bytes_lost, connections.bytes_lost_to_clients) {
        (lost, 0) => format!("{lost} bytes lost"),
        (lost, to_clients) => format!("{lost} bytes lost, {to_clients} lost on the way to clients"),
    }
}

fn joined(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(|item| item.to_string().escape_debug().to_string()).collect();
    items.join(" ")
}
