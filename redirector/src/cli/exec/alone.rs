//! `exec` without a daemon: this process is one for as long as CMD runs or anybody holds its listeners, and CMD's parent.

use std::{
    fs,
    io::{self, IsTerminal as _},
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, process::ExitStatusExt as _},
    },
    process::{Command, ExitCode, ExitStatus},
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use socket2::Type;
use tokio::{
    process::Child,
    signal::unix::{SignalKind, signal},
};

use super::{
    super::run::{LAST_WORK, privileged},
    Failure, args, teller,
};
use crate::{
    config::file::DaemonOptions,
    control::{SocketFile, handoff_path},
    daemon::{ConnectionLimits, Daemon, RESOLVE_INTERVAL, Surroundings},
    dial::OwnSockets,
    sys::namespace::{pidfd_open, pidfd_send_signal},
};

/// The name of the directory that an `exec` without a daemon makes below `$TMPDIR` begins with this.
pub(in crate::cli) const DIRECTORY_PREFIX: &str = "redirector-exec-";

/// Signals that are CMD's, not ours.
const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
];

/// Signals that end this process when CMD has ended and others hold its listeners: they are nobody else's then.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Ready when one of these comes.
async fn any(signals: Vec<tokio::signal::unix::Signal>) {
    let mut come: Vec<_> =
        signals.into_iter().map(|mut stream| Box::pin(async move { stream.recv().await })).collect();
    if !come.is_empty() {
        futures_util::future::select_all(come.iter_mut()).await;
    }
}

/// Runs `redirector exec` again as a child, against a daemon in this process.
pub(super) fn run(command: &args::Exec) -> Result<ExitCode, Failure> {
    let work = || -> Result<ExitCode, Failure> {
        privileged()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let served = runtime.block_on(serve(command));
        runtime.shutdown_timeout(LAST_WORK);
        served
    };
    work().map_err(Failure::of_exec)
}

async fn serve(command: &args::Exec) -> Result<ExitCode, Failure> {
    let private = fs::Permissions::from_mode(0o700);
    let directory = tempfile::Builder::new().prefix(DIRECTORY_PREFIX).permissions(private).tempdir()?;
    let control = directory.path().join("control.sock");
    let (_file, listener) = SocketFile::bind(&handoff_path(&control), Type::SEQPACKET)
        .map_err(|error| Failure::failed(&error))?;
    let surroundings = Surroundings {
        opener: command.engines.opener(&DaemonOptions::default()),
        own_sockets: OwnSockets::at(&[&handoff_path(&control)])?,
        resolve_interval: RESOLVE_INTERVAL,
    };
    let limits = ConnectionLimits { total: 1, files: u64::MAX, per_client: None };
    let (daemon, mut core) = Daemon::start(limits, surroundings)?;
    let handoffs = tokio::spawn(Arc::clone(&daemon).serve_handoff(listener));
    // Before there is a child: a signal that ended only this process would leave it without a daemon.
    let signals = FORWARDED
        .map(|number| signal(SignalKind::from_raw(number as i32)).map(|stream| (number, stream)))
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let mut again = Command::new(std::env::current_exe()?);
    again.arg("--socket").arg(&control).args(arguments(command));
    let is_over = teller::here(&mut again)?;
    // With the command goes the child's end of what it tells by.
    let mut child = tokio::process::Command::from(again).spawn()?;
    let status = tokio::select! {
        status = wait(&mut child, signals) => status?,
        what = core.ended() => {
            tracing::error!("{what}; CMD is ended, because nothing reaches it without that");
            end(&mut child, command.kill_after.0).await?;
            return Err(Failure::failed(&io::Error::other(what)));
        }
    };
    // From here on: until now they were CMD's.
    let ends = ENDING.map(|number| signal(SignalKind::from_raw(number as i32)));
    let ends = ends.into_iter().collect::<io::Result<Vec<_>>>()?;
    tokio::select! {
        // Nobody holds its listeners any more.
        _ = is_over => {}
        () = any(ends) => {}
        what = core.ended() => tracing::error!("{what}"),
    }
    handoffs.abort();
    daemon.drain(std::future::ready(())).await;
    Ok(exit_code(status))
}

/// The arguments that say what this command says.
fn arguments(command: &args::Exec) -> Vec<String> {
    let args::Exec {
        target,
        traffic: args::Traffic { matches, from, except, interfaces, priority },
        name,
        on_unavailable,
        user,
        kill_after,
        listen_as,
        listeners,
        end_with_cmd,
        accept_within,
        listen_within,
        env,
        render,
        coexist,
        host_netns,
        engines: _,
        command,
    } = command;
    let mut arguments = vec!["exec".into(), target.to_string()];
    let mut option = |name: &str, value: String| arguments.push(format!("--{name}={value}"));
    matches.iter().for_each(|one| option("match", one.to_string()));
    from.iter().for_each(|one| option("from", one.to_string()));
    except.iter().for_each(|one| option("except", one.to_string()));
    interfaces.iter().for_each(|one| option("interface", one.to_string()));
    option("priority", priority.to_string());
    name.iter().for_each(|one| option("name", one.to_string()));
    option("on-unavailable", on_unavailable.to_string());
    user.iter().for_each(|one| option("user", one.clone()));
    option("kill-after", kill_after.to_string());
    option("accept-within", accept_within.to_string());
    match listen_as {
        Some(port) => {
            option("listen-as", port.to_string());
            option("listen-within", listen_within.to_string());
        }
        None => option("listeners", listeners.to_string()),
    }
    env.iter().for_each(|(name, value)| option("env", format!("{name}={value}")));
    render.iter().for_each(|(template, file)| option("render", format!("{template}={file}")));
    if *end_with_cmd {
        arguments.push("--end-with-cmd".into());
    }
    if *coexist {
        arguments.push("--coexist".into());
    }
    if *host_netns {
        arguments.push("--host-netns".into());
    }
    arguments.push("--".into());
    arguments.extend(command.iter().cloned());
    arguments
}

/// Waits for the child, and gives it every signal that was meant for it.
async fn wait(
    child: &mut Child,
    signals: Vec<(Signal, tokio::signal::unix::Signal)>,
) -> Result<ExitStatus, Failure> {
    let pidfd = pidfd_of(child)?;
    let from_keyboard = io::stdin().is_terminal();
    let mut forwarders = tokio::task::JoinSet::new();
    for (number, mut stream) in signals {
        let pidfd = pidfd.try_clone()?;
        forwarders.spawn(async move {
            while stream.recv().await.is_some() {
                // A key sends these to the whole foreground group: CMD has had them already.
                if from_keyboard && matches!(number, Signal::SIGINT | Signal::SIGQUIT | Signal::SIGWINCH) {
                    continue;
                }
                if pidfd_send_signal(&pidfd, number as i32).is_err() {
                    return;
                }
            }
        });
    }
    Ok(child.wait().await?)
}

/// Asks the child to end, and ends it when it has not after a while: nobody passes signals on to it any more.
async fn end(child: &mut Child, kill_after: Duration) -> io::Result<()> {
    pidfd_send_signal(&pidfd_of(child)?, Signal::SIGTERM as i32)?;
    match tokio::time::timeout(kill_after, child.wait()).await {
        Ok(ended) => ended.map(drop),
        Err(_) => child.kill().await,
    }
}

fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    pidfd_open(pid.ok_or_else(|| io::Error::other("the child has ended before it was waited for"))?)
}

fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    u8::try_from(code.unwrap_or(125)).unwrap_or(125).into()
}
