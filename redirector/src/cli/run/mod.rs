//! `redirector run`: the daemon.

mod notify;
mod reload;

use std::{
    io,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sd_notify::NotifyState;
use socket2::Type;
use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use self::{
    notify::{notify, notify_ready},
    reload::OwnFiles,
};
use super::{
    args,
    exit::Failure,
    files::{Paths, Reading, Sources},
};
use crate::{
    control::{DEFAULT_SOCKET, SocketError, SocketFile, handoff_path},
    daemon::{
        ConnectionLimits, Core, Daemon, RESOLVE_INTERVAL, Surroundings, affordable_connections, raise_limits,
    },
    dial::OwnSockets,
    doctor,
    locate::{self, Opener},
    observe,
    sys::memory,
};

/// What is said on the command line, else in the file, else by nobody.
struct Setup {
    socket: PathBuf,
    opener: Opener,
    limits: ConnectionLimits,
    drain_timeout: Duration,
    resolve_interval: Duration,
    /// The files, read; `None` where there are none.
    config: Option<OwnFiles>,
}

const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What is still being worked on when all is done has this long: it may wait for somebody else.
pub(super) const LAST_WORK: Duration = Duration::from_secs(1);

pub(super) fn run(socket: Option<PathBuf>, command: args::Run) -> Result<(), Failure> {
    let args::Run {
        config,
        optional_config,
        drain_timeout,
        max_connections,
        max_connections_per_client,
        resolve_interval,
        log_format,
        log_level,
        engines,
    } = command;
    let paths = Paths { all: config, optional: optional_config };
    let files = Sources::read(&paths, Reading::AgainAndAgain)?.parse_or_tell()?;
    let daemon = files.daemon()?;
    let config = (!paths.is_empty()).then(|| OwnFiles { paths, files, daemon: daemon.clone() });
    // Before there are threads.
    memory::keep_little();
    let format = log_format.or(daemon.log_format).unwrap_or_default();
    let _log = observe::init(format, log_level, daemon.log_level)?;
    privileged()?;
    let opener = engines.opener(&daemon);
    let files = raise_limits();
    let limits = ConnectionLimits {
        total: connections(files, max_connections.or(daemon.max_connections)),
        files,
        per_client: max_connections_per_client.or(daemon.max_connections_per_client),
    };
    if let Err(why) = locate::sees_host() {
        tracing::warn!(why, "cannot learn that namespaces die: detach them before they do");
    }
    let setup = Setup {
        socket: socket.or(daemon.socket).unwrap_or_else(|| DEFAULT_SOCKET.into()),
        opener,
        limits,
        drain_timeout: drain_timeout.or(daemon.drain_timeout).map_or(DRAIN_TIMEOUT, |span| span.0),
        resolve_interval: resolve_interval
            .or(daemon.resolve_interval)
            .map_or(RESOLVE_INTERVAL, |span| span.0),
        config,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(setup));
    runtime.shutdown_timeout(LAST_WORK);
    served
}

/// A daemon that can steer nothing is none, whether it says so or not.
pub(super) fn privileged() -> Result<(), Failure> {
    let missing = doctor::missing();
    if missing.is_empty() {
        return Ok(());
    }
    let verb = if missing.len() == 1 { "is" } else { "are" };
    let why = format!("not privileged: {} {verb} missing, and nothing can be steered", missing.join(", "));
    Err(Failure::text(why)
        .with_hint("run it as root, with these capabilities; `redirector doctor` says what else is missing"))
}

/// As many as are wanted, and as the limit of open files allows.
fn connections(files: u64, wanted: Option<NonZeroU32>) -> usize {
    let affordable = affordable_connections(files);
    match wanted.map(|wanted| wanted.get() as usize) {
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
    }
}

async fn serve(setup: Setup) -> Result<(), Failure> {
    let Setup { socket, opener, limits, drain_timeout, resolve_interval, config } = setup;
    let mut signals = Signals::new()?;
    let bind = |path: &Path, kind| {
        SocketFile::bind(path, kind).map_err(|error| {
            let is_in_use = matches!(error, SocketError::InUse(_));
            let failure = Failure::failed(&error);
            if is_in_use {
                failure.with_hint("a second daemon has a socket of its own: `--socket PATH`")
            } else {
                failure
            }
        })
    };
    let (file, listener) = bind(&socket, Type::STREAM)?;
    let (handoff_file, handoff) = bind(&handoff_path(&socket), Type::SEQPACKET)?;
    let listener = UnixListener::from_std(listener.into())?;
    let own_sockets = OwnSockets::at(&[&socket, &handoff_path(&socket)])?;
    let surroundings = Surroundings { opener, own_sockets, resolve_interval };
    let (daemon, mut core) = Daemon::start(limits, surroundings)?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(Arc::clone(&daemon).serve(listener, async {
        drop(stopped.await);
    }));
    let handoffs = tokio::spawn(Arc::clone(&daemon).serve_handoff(handoff));
    let ready = async {
        if let Some(config) = &config {
            reload::first(&daemon, &config.files).await?;
        }
        tracing::info!(socket = %socket.display(), max_connections = limits.total, "ready");
        let mut set_aside = daemon.set_aside();
        notify_ready(reload::status(*set_aside.borrow_and_update()));
        tokio::spawn(reload::tell_status(set_aside));
        Ok::<(), Failure>(())
    };
    let reloads = Arc::new(Notify::new());
    // What a file names may not answer; a signal is heard meanwhile, and the drain waits for what has been begun.
    let stopped_early = tokio::select! {
        result = ready => {
            result?;
            None
        }
        why = until_stopped(&mut signals, &mut core, &reloads) => Some(why),
    };
    let why = match stopped_early {
        Some(why) => why,
        None => {
            core.start(
                "applies the file at SIGHUP",
                reload::whenever(Arc::clone(&reloads), Arc::clone(&daemon), config),
            );
            until_stopped(&mut signals, &mut core, &reloads).await
        }
    };
    match &why {
        Stop::Asked(signal) => tracing::info!(signal, "stopping"),
        Stop::Broken(what) => tracing::error!("{what}; a daemon without it is none: stopping"),
    }
    notify(&[NotifyState::Stopping]);
    drop(stop);
    handoffs.abort();
    daemon
        .drain(async {
            tokio::select! {
                () = tokio::time::sleep(drain_timeout) => {}
                name = signals.stop() => tracing::warn!(signal = name, "not waiting any longer"),
            }
        })
        .await;
    // A client that keeps its connection open must not keep us.
    server.abort();
    drop(server.await);
    drop((file, handoff_file));
    match why {
        Stop::Asked(_) => Ok(()),
        Stop::Broken(what) => Err(Failure::failed(&io::Error::other(what))),
    }
}

/// Why the daemon stops.
enum Stop {
    /// By this signal.
    Asked(&'static str),
    /// One of the tasks without which it is none has ended.
    Broken(String),
}

/// Passes on what other signals ask for.
async fn until_stopped(signals: &mut Signals, core: &mut Core, reloads: &Notify) -> Stop {
    loop {
        tokio::select! {
            asked = signals.next() => match asked {
                Asked::Stop(name) => return Stop::Asked(name),
                Asked::Reload => reloads.notify_one(),
            },
            what = core.ended() => return Stop::Broken(what),
        }
    }
}

/// What a signal asks for.
enum Asked {
    Stop(&'static str),
    Reload,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.hang_up.recv() => Asked::Reload,
        }
    }

    async fn stop(&mut self) -> &'static str {
        loop {
            if let Asked::Stop(name) = self.next().await {
                return name;
            }
        }
    }
}
