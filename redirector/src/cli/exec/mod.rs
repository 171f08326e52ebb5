//! `redirector exec`: this process becomes CMD, with listeners of the namespace.

mod alone;
mod placeholders;
mod render;
mod teller;
mod user;

use std::{
    convert::Infallible,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, ExitCode},
};

use command_fds::{CommandFdExt as _, FdMapping};

pub(super) use self::alone::DIRECTORY_PREFIX;
use self::{placeholders::Placeholders, render::Render, teller::Teller, user::User};
use super::{args, exit, exit::Failure};
use crate::{
    control::{Handed, Handoff, HandoffError, LeaseRequest, handoff_path},
    sys,
};

/// Where systemd's protocol begins (sd_listen_fds(3), `SD_LISTEN_FDS_START`).
const FIRST_FD: i32 = 3;

/// Returns only when CMD did not run in this process.
pub(super) fn exec(socket: &Path, command: &args::Exec) -> ExitCode {
    let result = prepare(command).and_then(|prepared| match Handoff::connect(&handoff_path(socket)) {
        Ok(handoff) => {
            // Before this process is asked about listen(2), or another user's.
            let teller = Teller::start();
            if let Err(error) = &teller {
                let why = format!("start who says what becomes of the listeners: {error}; nobody does");
                exit::say_in_time("warning", &why);
            }
            let notices = if teller.is_ok() { Notices::Wanted } else { Notices::Unwanted };
            let handed = lease(handoff, command, prepared.user.as_ref(), notices)?;
            become_program(command, prepared, (handed, teller.ok())).map(|never| match never {})
        }
        Err(HandoffError::Unreachable { source, .. }) if is_absent(&source) => alone::run(command),
        Err(error) => Err(Failure::failed(&error).of_exec()),
    });
    match result {
        Ok(code) => code,
        Err(failure) => exit::finish_in_time(Err(failure)),
    }
}

/// Nobody serves that socket.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// What a command needs besides listeners.
struct Prepared {
    user: Option<User>,
    renders: Vec<Render>,
}

/// What can be wrong without a namespace is found before one is touched.
fn prepare(command: &args::Exec) -> Result<Prepared, Failure> {
    let user = command.user.as_deref().map(User::find).transpose()?;
    let renders = Render::prepare(&command.render, user.as_ref())?;
    Ok(Prepared { user, renders })
}

/// Whether somebody is there who says what becomes of the listeners.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notices {
    Wanted,
    Unwanted,
}

fn lease(
    handoff: Handoff,
    command: &args::Exec,
    user: Option<&User>,
    notices: Notices,
) -> Result<Handed, Failure> {
    let asked = match command.listen_as {
        None => None,
        // Now that there is a daemon to ask: without one this process would be the daemon, and ask itself.
        Some(_) => Some(sys::seccomp::ask_about_listen().map_err(|error| {
            let why = format!("--listen-as: seccomp SECCOMP_SET_MODE_FILTER: {error}");
            Failure::failed(&io::Error::other(why)).of_exec()
        })?),
    };
    let enclosed: Vec<_> = asked.iter().map(OwnedFd::as_fd).collect();
    handoff.lease(&request(command, user, notices), &enclosed).map_err(|error| match error {
        HandoffError::Refused(error) => Failure::from(error).of_exec(),
        error => Failure::failed(&error).of_exec(),
    })
}

fn request(command: &args::Exec, user: Option<&User>, notices: Notices) -> LeaseRequest {
    let traffic = &command.traffic;
    LeaseRequest {
        target: command.target.clone(),
        matches: traffic.matches.clone(),
        from: traffic.from.clone(),
        except: traffic.except.clone(),
        interfaces: traffic.interfaces.clone(),
        priority: traffic.priority,
        name: command.name.clone(),
        on_unavailable: command.on_unavailable,
        coexist: command.coexist,
        host_netns: command.host_netns,
        kill_after: Some(command.kill_after),
        listen_as: command.listen_as,
        user: user.map(User::id),
        listeners: command.listeners,
        end_with_process: command.end_with_cmd,
        accept_within: Some(command.accept_within),
        listen_within: command.listen_as.map(|_| command.listen_within),
        notices: notices == Notices::Wanted,
    }
}

/// The lease is bound to this process, which becomes CMD: signals and the exit code are CMD's own.
fn become_program(
    command: &args::Exec,
    Prepared { user, renders }: Prepared,
    (handed, teller): (Handed, Option<Teller>),
) -> Result<Infallible, Failure> {
    let Handed { leased, listeners: fds, connection } = handed;
    let placeholders = Placeholders::new(&leased.listeners, FIRST_FD);
    for warning in &leased.warnings {
        exit::say_in_time("warning", warning);
    }
    let rendered = renders.iter().map(|one| Ok((one, one.filled(&placeholders)?)));
    let rendered = rendered.collect::<Result<Vec<_>, Failure>>()?;
    let words = command.command.iter().map(|word| placeholders.fill(word));
    let words = words.collect::<Result<Vec<_>, _>>()?;
    let (program, arguments) = words.split_first().expect("clap requires one");
    let mut program_command = Command::new(program);
    program_command.args(arguments);
    let names: Vec<&str> = leased.listeners.iter().map(|listener| &*listener.name).collect();
    let activation = [
        ("LISTEN_FDS", fds.len().to_string()),
        ("LISTEN_PID", std::process::id().to_string()),
        ("LISTEN_FDNAMES", names.join(":")),
    ];
    for (name, value) in activation {
        if fds.is_empty() {
            // What was there before is not true any more.
            program_command.env_remove(name);
        } else {
            program_command.env(name, value);
        }
    }
    teller.iter().for_each(|teller| teller.mark(&mut program_command));
    for (name, value) in &command.env {
        program_command.env(name, placeholders.fill(value)?);
    }
    let mappings = fds
        .into_iter()
        .zip(FIRST_FD..)
        .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
        .collect();
    program_command.fd_mappings(mappings).map_err(|error| Failure::failed(&error).of_exec())?;
    if let Some(user) = user {
        user.become_it()?;
    }
    rendered.iter().try_for_each(|(one, text)| one.write(text))?;
    teller.iter().for_each(|teller| teller.hand_over(&connection));
    let error = program_command.exec();
    // What exec(3) of the standard library undoes for CMD: we say an error, perhaps to nobody.
    sys::ignore_broken_pipes();
    Err(Failure::of_program(program, &error))
}
