//! The daemon's own files: at its start, and at SIGHUP.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::{Notify, watch};

use super::notify::{notify, notify_ready, notify_status};
use crate::{
    cli::{
        exit::Failure,
        file::counted,
        files::{ConfigFiles, FileProblem, Paths, Reading, Sources},
    },
    config::file::{DaemonOptions, Problem},
    control::{Applied, ApplyRequest, Caller, Code, Error},
    daemon::Daemon,
    sys::blocking::blocking,
};

/// The files that a daemon was started with.
pub(super) struct OwnFiles {
    pub(super) paths: Paths,
    pub(super) files: ConfigFiles,
    /// How they set it up.
    pub(super) daemon: DaemonOptions,
}

async fn apply(daemon: &Arc<Daemon>, files: &ConfigFiles) -> Result<Applied, Error> {
    let caller = Caller::this_process();
    let request = ApplyRequest { lenient: true, ..files.request(None) };
    // A task of its own: what has begun is done to its end, although a signal may have ended the waiting for it.
    let daemon = Arc::clone(daemon);
    let task = tokio::spawn(async move { daemon.apply(caller, request).await });
    task.await.unwrap_or_else(|error| Err(Error::chain(Code::Failed, &error)))
}

/// Applies the file that the daemon starts with: a daemon without it is none. Namespaces that cannot be made are set aside.
pub(super) async fn first(daemon: &Arc<Daemon>, files: &ConfigFiles) -> Result<(), Failure> {
    match apply(daemon, files).await {
        Ok(applied) => {
            tell(files, &applied);
            Ok(())
        }
        Err(error) => {
            log(&files.problems(&error));
            Err(error.into())
        }
    }
}

/// Tells the daemon's status whenever it has become another one: what is set aside is tried again, detached, or left out of the
/// next file.
pub(super) async fn tell_status(mut set_aside: watch::Receiver<usize>) {
    while set_aside.changed().await.is_ok() {
        let status = status(*set_aside.borrow_and_update());
        notify_status(status);
    }
}

/// The daemon's status with so many namespaces set aside.
pub(super) fn status(set_aside: usize) -> String {
    match set_aside {
        0 => String::new(),
        count => format!("{} of the file could not be made", counted(count, "namespace")),
    }
}

/// Applies the file whenever it is asked to, as often as there is a need: what is asked for meanwhile is asked for once.
pub(super) async fn whenever(asked: Arc<Notify>, daemon: Arc<Daemon>, config: Option<OwnFiles>) {
    loop {
        asked.notified().await;
        match &config {
            Some(OwnFiles { paths, daemon: before, .. }) => again(&daemon, paths, before).await,
            None => tracing::warn!("SIGHUP: there is no file to apply, for want of --config"),
        }
    }
}

/// Reads the file again and applies it. What was in force stays so when that cannot be done. `before` is what the daemon
/// was started with.
async fn again(daemon: &Arc<Daemon>, paths: &Paths, before: &DaemonOptions) {
    // systemd waits for the end of it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "sd_notify"),
    }
    let own = paths.clone();
    let read = move || Sources::read(&own, Reading::AgainAndAgain).map(Sources::parse);
    let read = blocking(read).await;
    let mut is_applied = false;
    match read.unwrap_or_else(|error| Err(Failure::failed(&error))) {
        Err(failure) => tracing::error!(error = %failure, "SIGHUP: nothing is changed"),
        Ok(Err((sources, problems))) => {
            let problems: Vec<FileProblem<'_>> =
                problems.into_iter().map(|(index, problem)| (sources.source(index), problem)).collect();
            log(&problems);
            tracing::error!(problems = problems.len(), "SIGHUP: nothing is changed");
        }
        Ok(Ok(files)) => {
            if files.daemon().is_ok_and(|daemon| daemon != *before) {
                tracing::warn!(
                    "SIGHUP: `[daemon]` is read at the start only; what is other there needs a restart"
                );
            }
            match apply(daemon, &files).await {
                Ok(applied) => {
                    tell(&files, &applied);
                    is_applied = true;
                    tracing::info!(
                        changes = applied.changes.len(),
                        waiting = applied.waiting.len(),
                        set_aside = applied.set_aside.len(),
                        "SIGHUP: the file is applied"
                    );
                }
                Err(error) => {
                    log(&files.problems(&error));
                    tracing::error!(%error, "SIGHUP: nothing is changed");
                }
            }
        }
    }
    if is_applied {
        notify_ready(status(*daemon.set_aside().borrow()));
    } else {
        notify(&[NotifyState::Ready]);
    }
}

/// Logs what may surprise, and what was set aside.
fn tell(files: &ConfigFiles, applied: &Applied) {
    for warning in &applied.warnings {
        tracing::warn!(warning, "apply");
    }
    for refusal in &applied.waiting {
        let (source, Problem { place, message, .. }) = files.problem(refusal);
        tracing::warn!(
            file = %source.path().display(), line = place.line, column = place.column,
            "its rules wait; the rest of the file is in force: {message}"
        );
    }
    for refusal in &applied.set_aside {
        let (source, Problem { place, message, hint }) = files.problem(refusal);
        let target = files.target(refusal);
        tracing::error!(
            file = %source.path().display(), line = place.line, column = place.column, target, hint,
            "set aside, and tried again by and by; the rest of the file is in force: {message}"
        );
    }
}

fn log(problems: &[FileProblem<'_>]) {
    for (source, Problem { place, message, hint }) in problems {
        tracing::error!(file = %source.path().display(), line = place.line, column = place.column, hint, "{message}");
    }
}
