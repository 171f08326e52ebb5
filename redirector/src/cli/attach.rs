//! `redirector attach`.

use std::{io, path::Path};

use super::{args, exit, exit::Failure, output};
use crate::{
    config::RuleSpec,
    control::{self, AttachRequest, AttachResult, Attached, differences},
};

pub(super) async fn attach(socket: &Path, command: args::Attach) -> Result<(), Failure> {
    let args::Attach {
        target,
        traffic: args::Traffic { matches, from, except, interfaces, priority },
        to,
        name,
        on_unavailable,
        connect_timeout,
        idle_timeout,
        coexist,
        follow,
        no_follow,
        wait,
        host_netns,
        dry_run,
        json,
    } = command;
    let rule = RuleSpec {
        name,
        matches,
        from,
        except,
        interfaces,
        priority,
        to,
        on_unavailable,
        connect_timeout,
        idle_timeout,
        coexist,
    };
    // The daemon checks it as well; this way a mistake is found without one.
    rule.validate().map_err(|error| Failure::usage(error.to_string()))?;
    let asked_for = [(follow, "--follow"), (wait, "--wait")].into_iter().find(|(is_given, _)| *is_given);
    if let Some((_, option)) = asked_for.filter(|_| !target.can_be_followed()) {
        let why =
            "only a container, `netns:NAME` or `path:/ABS` can be followed or waited for, and no process";
        return Err(Failure::usage(format!("{option}: target `{target}`: {why}")));
    }
    // As in a file, but that what cannot follow does not, where nobody has asked for it.
    let by_default = target.container().is_some() && rule.cannot_follow().is_none();
    let follow = follow || (by_default && !no_follow);
    let request = AttachRequest { target, rule, dry_run, host_netns, follow, wait };
    let answer: Attached = control::call(socket, "/v1/attach", &request).await?;
    output::print(|out| if json { output::json(out, &answer) } else { print(out, &answer) })?;
    for warning in &answer.warnings {
        exit::say("warning", warning);
    }
    Ok(())
}

fn print(out: &mut impl io::Write, answer: &Attached) -> io::Result<()> {
    let Attached { result, dry_run, target, cookie, rule, before, after, .. } = answer;
    let shown = target.to_string();
    if let (Some(before), Some(after)) = (before, after)
        && before != after
    {
        let differences = differences(before, after);
        writeln!(out, "~ {} {rule}: {}", shown.escape_debug(), differences.escape_debug())?;
    }
    let would = if *dry_run { "would be " } else { "" };
    let what = match result {
        AttachResult::Attached => "attached",
        AttachResult::Changed => "replaced",
        AttachResult::Unchanged => "unchanged",
        AttachResult::Waiting => {
            let comes = if target.container().is_some() { "runs" } else { "is there" };
            return writeln!(out, "waiting: rule {rule} until {} {comes}", shown.escape_debug());
        }
    };
    writeln!(out, "{would}{what}: rule {rule} in {} (cookie {cookie})", shown.escape_debug())?;
    let Attached { foreign_programs, existing_connections, .. } = answer;
    for program in foreign_programs {
        writeln!(
            out,
            "another sk_lookup program is attached there: id {}, name `{}`",
            program.id,
            program.name.escape_debug()
        )?;
    }
    if *existing_connections > 0 {
        writeln!(
            out,
            "{existing_connections} open connections on matched ports stay where they are until they reconnect"
        )?;
    }
    Ok(())
}
