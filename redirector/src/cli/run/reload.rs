//! The daemon's own file: at its start, and at SIGHUP.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use sd_notify::NotifyState;
use tokio::sync::{Notify, watch};

use super::notify::{notify, notify_ready, notify_status};
use crate::{
    cli::{
        exit::Failure,
        file::{SourceFile, counted},
    },
    config::file::{ConfigFile, DaemonOptions, Problem},
    control::{Applied, ApplyRequest, Caller, Code, Error},
    daemon::Daemon,
    sys::blocking::blocking,
};

async fn apply(daemon: &Arc<Daemon>, file: &ConfigFile) -> Result<Applied, Error> {
    let caller = Caller::this_process();
    let (namespaces, discover) = (file.namespaces.clone(), file.discover.clone());
    let request = ApplyRequest { namespaces, discover, lenient: true, ..ApplyRequest::default() };
    // A task of its own: what has begun is done to its end, although a signal may have ended the waiting for it.
    let daemon = Arc::clone(daemon);
    let task = tokio::spawn(async move { daemon.apply(caller, request).await });
    task.await.unwrap_or_else(|error| Err(Error::chain(Code::Failed, &error)))
}

/// Applies the file that the daemon starts with: a daemon without it is none. Namespaces that cannot be made are set aside.
pub(super) async fn first(daemon: &Arc<Daemon>, path: &Path, file: &ConfigFile) -> Result<(), Failure> {
    match apply(daemon, file).await {
        Ok(applied) => {
            tell(path, file, &applied);
            Ok(())
        }
        Err(error) => {
            log(path, &SourceFile::problems(file, &error));
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
pub(super) async fn whenever(asked: Arc<Notify>, daemon: Arc<Daemon>, config: Option<(PathBuf, ConfigFile)>) {
    loop {
        asked.notified().await;
        match &config {
            Some((path, file)) => again(&daemon, path, &file.daemon).await,
            None => tracing::warn!("SIGHUP: there is no file to apply, for want of --config"),
        }
    }
}

/// Reads the file again and applies it. What was in force stays so when that cannot be done. `before` is what the daemon
/// was started with.
async fn again(daemon: &Arc<Daemon>, path: &Path, before: &DaemonOptions) {
    // systemd waits for the end of it.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "sd_notify"),
    }
    let own = path.to_owned();
    let read = move || SourceFile::read_again(&own).map(|source| source.parse());
    let read = blocking(read).await;
    let mut is_applied = false;
    match read.unwrap_or_else(|error| Err(Failure::failed(&error))) {
        Err(failure) => tracing::error!(error = %failure, "SIGHUP: nothing is changed"),
        Ok(Err(problems)) => {
            log(path, &problems);
            tracing::error!(file = %path.display(), problems = problems.len(), "SIGHUP: nothing is changed");
        }
        Ok(Ok(file)) => {
            if file.daemon != *before {
                tracing::warn!(
                    "SIGHUP: `[daemon]` is read at the start only; what is other there needs a restart"
                );
            }
            match apply(daemon, &file).await {
                Ok(applied) => {
                    tell(path, &file, &applied);
                    is_applied = true;
                    tracing::info!(
                        changes = applied.changes.len(),
                        set_aside = applied.set_aside.len(),
                        "SIGHUP: the file is applied"
                    );
                }
                Err(error) => {
                    log(path, &SourceFile::problems(&file, &error));
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
fn tell(path: &Path, file: &ConfigFile, applied: &Applied) {
    for warning in &applied.warnings {
        tracing::warn!(warning, "apply");
    }
    for refusal in &applied.set_aside {
        let Problem { place, message, hint } = SourceFile::problem(file, refusal);
        let target = file.namespaces.get(refusal.namespace).map(|spec| spec.target.to_string());
        tracing::error!(
            file = %path.display(), line = place.line, column = place.column, target, hint,
            "set aside, and tried again by and by; the rest of the file is in force: {message}"
        );
    }
}

fn log(path: &Path, problems: &[Problem]) {
    for Problem { place, message, hint } in problems {
        tracing::error!(file = %path.display(), line = place.line, column = place.column, hint, "{message}");
    }
}
