//! `redirector run`: the daemon.

use std::{io, path::Path, sync::Arc};

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
    supervisor::{Supervisor, affordable_connections, raise_limits},
    target,
};

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

async fn serve(socket: &Path, command: &args::Run, max_connections: usize) -> Result<(), Failure> {
    let mut signals = Signals::new()?;
    let bind = |path: &Path, kind| SocketFile::bind(path, kind).map_err(|error| Failure::failed(&error));
    let (file, listener) = bind(socket, Type::STREAM)?;
    let (handoff_file, handoff) = bind(&handoff_path(socket), Type::SEQPACKET)?;
    let listener = UnixListener::from_std(listener.into())?;
    let supervisor = Supervisor::start(max_connections, command.engines.opener())?;
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
