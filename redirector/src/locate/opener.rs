//! Opening whatever a target is, containers included.

use super::{
    Caller, OpenNetns, TargetError,
    engines::{EngineError, Engines, HeldEngine, Inspected},
    open,
    open::{open_path, open_process},
};
use crate::{
    config::{Container, Target},
    sys,
};

/// Looks at a container before it is given up that two in a row say the same: it may be restarting.
const LOOKS: usize = 5;

/// Finds namespaces.
#[derive(Clone, Debug, Default)]
pub struct Opener {
    engines: Engines,
}

impl Opener {
    /// Finds containers by these engines.
    #[must_use]
    pub fn new(engines: Engines) -> Self {
        Self { engines }
    }

    /// Who is asked about containers.
    #[must_use]
    pub fn engines(&self) -> &Engines {
        &self.engines
    }

    /// As [`open()`], off this thread, and for containers.
    ///
    /// # Errors
    ///
    /// [`TargetError`].
    pub async fn open(&self, target: Target, caller: Caller) -> Result<OpenNetns, TargetError> {
        match &target {
            Target::Container(container) => {
                let engine = self.engines.hold(container.engine).await;
                let engine = engine.map_err(|source| refusal(&target, source))?;
                open_container(&target, container, &engine).await
            }
            _ => blocking(move || open(&target, caller)).await,
        }
    }
}

/// Opens a container's namespace. By its process only when the engine says the same of the container before and
/// after: the process that was looked at was the container's then.
async fn open_container(
    target: &Target,
    container: &Container,
    engine: &HeldEngine,
) -> Result<OpenNetns, TargetError> {
    let inspect = async || {
        let seen = engine.inspect(&container.name).await;
        seen.map_err(|source| refusal(target, source))
    };
    let mut seen = inspect().await?;
    let mut result = Err(TargetError::NotFound {
        target: target.clone(),
        what: "the container starts again and again".into(),
    });
    for _ in 0..LOOKS {
        let (named, before, peer) = (target.clone(), seen.clone(), engine.peer());
        let ours = move |pid| peer.process_called(pid).ok().flatten();
        match blocking(move || open_inspected(&named, &before, ours)).await {
            // No two sandboxes have the same path, but where it is that of a process.
            Ok(opened) if seen.sandbox.as_ref() == Some(&opened.path) && opened.processes.is_empty() => {
                return Ok(opened);
            }
            opened => {
                let again = inspect().await?;
                if again == seen {
                    return opened;
                }
                seen = again;
                if opened.is_err() {
                    result = opened;
                }
            }
        }
    }
    result
}

async fn blocking(
    work: impl FnOnce() -> Result<OpenNetns, TargetError> + Send + 'static,
) -> Result<OpenNetns, TargetError> {
    sys::blocking::blocking(work).await.expect("it does not panic")
}

fn refusal(target: &Target, source: EngineError) -> TargetError {
    let target = target.clone();
    if source.is_no_such_container() {
        return TargetError::NotFound { target, what: source.to_string() };
    }
    TargetError::Engine { target, source }
}

/// Opens what the engine keeps, where that is there; else what the container's first process is in. `ours` gives our number of
/// a process of the engine's.
fn open_inspected(
    target: &Target,
    seen: &Inspected,
    ours: impl Fn(i32) -> Option<i32>,
) -> Result<OpenNetns, TargetError> {
    let Some(pid) = seen.pid else {
        let (target, id, status) = (target.clone(), seen.id.clone(), seen.status.clone());
        return Err(TargetError::NotRunning { target, id, status });
    };
    let kept = seen.sandbox.as_deref().map(|path| open_path(target, path));
    let opened = match kept {
        Some(Ok(opened)) => opened,
        // What the engine of another user keeps cannot be seen by its path, and a container that has the namespace
        // of another one has nothing there.
        _ => {
            let other = || TargetError::OtherPidNamespaceOfEngine { target: target.clone(), pid };
            let process = ours(pid).ok_or_else(other)?;
            let opened = open_process(target, process)?;
            // A number that is another's by now would have been opened.
            if ours(pid) != Some(process) {
                return Err(other());
            }
            opened
        }
    };
    Ok(OpenNetns { host: opened.host || seen.is_in_host_network, container: Some(seen.id.clone()), ..opened })
}

#[cfg(test)]
mod tests;
