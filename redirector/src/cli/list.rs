//! `redirector list`.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
    path::Path,
};

use comfy_table::{Table, presets};

use super::{args, exit::Failure};
use crate::{
    config::Target,
    control::{self, Draining, Listing, NamespaceView},
};

pub(super) async fn list(socket: &Path, command: args::List) -> Result<(), Failure> {
    let args::List { target, json } = command;
    let path = match &target {
        None => "/v1/namespaces".to_owned(),
        Some(target) => format!("/v1/namespaces?target={}", percent_encode(&target.to_string())),
    };
    let listing: Listing = control::get(socket, &path).await?;
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, &listing).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &listing)?;
    }
    Ok(())
}

fn percent_encode(text: &str) -> String {
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
    let Listing { schema: _, namespaces, draining } = listing;
    if namespaces.is_empty() {
        writeln!(out, "no namespace is steered")?;
    }
    for (index, netns) in namespaces.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        print_namespace(out, netns)?;
    }
    for Draining { target, cookie, connections } in draining {
        writeln!(
            out,
            "\n{} (cookie {cookie}): detached, {connections} relayed connections go on",
            shown(target)
        )?;
    }
    Ok(())
}

fn shown(target: &Target) -> String {
    target.to_string().escape_debug().to_string()
}

fn print_namespace(out: &mut impl io::Write, netns: &NamespaceView) -> io::Result<()> {
    let connections = &netns.connections;
    writeln!(out, "{} (cookie {}): {}", shown(&netns.target), netns.cookie, netns.state)?;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "RULE",
        "MATCH",
        "TO",
        "STATE",
        "STEERED",
        "PASSED",
        "REJECTED",
        "BYPASSED",
        "UNAVAILABLE",
    ]);
    for rule in &netns.rules {
        let counters = &rule.counters;
        table.add_row([
            rule.name.to_string(),
            joined(&rule.matches),
            joined(&rule.to),
            rule.state.clone(),
            counters.steered.to_string(),
            counters.passed.to_string(),
            counters.rejected.to_string(),
            counters.bypassed.to_string(),
            with_reasons(counters.unavailable, &counters.unavailable_reasons),
        ]);
    }
    for line in table.lines() {
        writeln!(out, " {}", line.trim_end())?;
    }
    let failed: u64 = connections.failed.values().sum();
    writeln!(
        out,
        "  connections: {} active, {} accepted, {} relayed, {} failed; {} bytes in, {} bytes out",
        connections.active,
        connections.accepted,
        connections.relayed,
        with_reasons(failed, &connections.failed),
        connections.bytes_in,
        connections.bytes_out,
    )?;
    for listener in netns.listeners.iter().filter(|listener| !listener.healthy) {
        writeln!(out, "  listener {} {} is being revived", listener.family, listener.address)?;
    }
    if netns.drift.listeners_revived + netns.drift.slots_restored > 0 {
        writeln!(
            out,
            "  mended: {} listeners revived, {} slots restored",
            netns.drift.listeners_revived, netns.drift.slots_restored
        )?;
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

fn joined(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(|item| item.to_string().escape_debug().to_string()).collect();
    items.join(" ")
}

fn with_reasons(total: u64, reasons: &BTreeMap<String, u64>) -> String {
    if reasons.is_empty() {
        return total.to_string();
    }
    let parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    format!("{total} ({})", parts.join(", "))
}
