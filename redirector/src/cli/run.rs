//! `redirector run`: the daemon.

use std::{io, path::Path, sync::Arc};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use socket2::Type;
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
};

use super::{args, exit::Failure};
use crate::{
    control::{self, SocketFile, handoff_path},
    observe,
    supervisor::Supervisor,
    target,
};

/// The part of the open files that is not for connections: a namespace has 9 fds for listeners, program, maps and
/// link, and sockets in stock for `original`.
const RESERVED: u64 = 4;

/// At least so many are not for connections: the daemon's own, of one namespace, and what a command needs. With
/// fewer, `list` and `detach` would fail while many clients come.
const LEAST_RESERVED: u64 = 32;

/// A connection's two sockets.
const FILES_PER_CONNECTION: u64 = 2;

pub(super) fn run(socket: &Path, command: &args::Run) -> Result<(), Failure> {
    observe::init();
    let files = raise_limits();
    let affordable = affordable_connections(files);
    let max_connections = match command.max_connections.map(|wanted| wanted as usize) {
        Some(wanted) if wanted > affordable => {
            tracing::warn!(
                wanted,
                affordable,
                files,
                "--max-connections: more than the limit of open files allows"
            );
            affordable
        }
        Some(wanted) => wanted,
        None => affordable,
    };
    if let Err(why) = target::sees_host() {
        tracing::warn!(why, "cannot learn that namespaces die: detach them before they do");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(socket, command, max_connections))
}

/// Connections that fit into so many open files; at least one.
fn affordable_connections(files: u64) -> usize {
    let connections = files.saturating_sub(LEAST_RESERVED.max(files / RESERVED)) / FILES_PER_CONNECTION;
    usize::try_from(connections).unwrap_or(usize::MAX).clamp(1, tokio::sync::Semaphore::MAX_PERMITS)
}

async fn serve(socket: &Path, command: &args::Run, max_connections: usize) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let bind = |path: &Path, kind| SocketFile::bind(path, kind).map_err(|error| Failure::failed(&error));
    let (file, listener) = bind(socket, Type::STREAM)?;
    let (handoff_file, handoff) = bind(&handoff_path(socket), Type::SEQPACKET)?;
    let listener = UnixListener::from_std(listener.into())?;
    let supervisor = Supervisor::start(max_connections)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let api = Arc::clone(&supervisor);
    let server = tokio::spawn(control::serve(listener, api, async {
        drop(stopped.await);
    }));
    let handoffs = tokio::spawn(control::serve_handoff(handoff, Arc::clone(&supervisor)));
    tracing::info!(socket = %socket.display(), max_connections, "ready");
    notify(&[NotifyState::Ready]);

    let name = signals.next().await;
    tracing::info!(signal = name, "stopping");
    notify(&[NotifyState::Stopping]);
    drop(stop);
    handoffs.abort();
    supervisor
        .drain(async {
            tokio::select! {
                () = tokio::time::sleep(command.drain_timeout.0) => {}
                name = signals.next() => tracing::warn!(signal = name, "not waiting any longer"),
            }
        })
        .await;
    // A client that keeps its connection open must not keep us.
    server.abort();
    drop(server.await);
    drop((file, handoff_file));
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "sd_notify");
    }
}

/// Raises what can be raised, and gives the limit of open files. None of it is a reason not to start: before
/// Linux 5.11 BPF memory counts as locked, after that the first one is not needed.
fn raise_limits() -> u64 {
    let unlimited = nix::libc::RLIM_INFINITY;
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, unlimited, unlimited) {
        tracing::warn!(%error, "setrlimit RLIMIT_MEMLOCK: goes on with the limit as it is");
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => hard,
            Err(error) => {
                tracing::warn!(%error, soft, hard, "setrlimit RLIMIT_NOFILE: goes on with the limit as it is");
                soft
            }
        },
        Ok((soft, _)) => soft,
        Err(error) => {
            tracing::warn!(%error, "getrlimit RLIMIT_NOFILE");
            1024
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_files_is_not_for_connections_and_32_at_least() {
        for (files, connections) in [(0, 1), (32, 1), (64, 16), (128, 48), (1024, 384), (20_000, 7_500)] {
            assert_eq!(affordable_connections(files), connections, "{files}");
        }
        assert_eq!(affordable_connections(u64::MAX), tokio::sync::Semaphore::MAX_PERMITS);
    }
}
