//! `redirector attach`.

use std::{io, path::Path};

use super::{args, exit, exit::Failure, output};
use crate::{
    config::{RuleSpec, Target},
    control::{self, AttachRequest, AttachResult, Attached},
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
    if follow && !matches!(target, Target::Container(_)) {
        return Err(Failure::usage(format!("--follow: target `{target}`: only a container can be followed")));
    }
    let request = AttachRequest { target, rule, dry_run, host_netns, follow };
    let answer: Attached = control::call(socket, "/v1/attach", &request).await?;
    output::print(|out| if json { output::json(out, &answer) } else { print(out, &answer) })?;
    for warning in &answer.warnings {
        exit::say("warning", warning);
    }
    Ok(())
}

fn print(out: &mut impl io::Write, answer: &Attached) -> io::Result<()> {
    let Attached { result, dry_run, target, cookie, rule, foreign_programs, existing_connections, .. } =
        answer;
    let would = if *dry_run { "would be " } else { "" };
    let what = match result {
        AttachResult::Attached => "attached",
        AttachResult::Changed => "changed",
        AttachResult::Unchanged => "unchanged",
        AttachResult::Waiting => {
            return writeln!(out, "waiting: rule {rule} until {target} runs");
        }
    };
    let target = target.to_string();
    writeln!(out, "{would}{what}: rule {rule} in {} (cookie {cookie})", target.escape_debug())?;
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
