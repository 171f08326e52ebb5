//! What an engine says of one container.

use std::{fmt, path::PathBuf};

use bollard::Docker;

use super::{EngineError, HeldEngine, error::Failure};
use crate::text::escaped;

/// What an engine calls a container for as long as it exists: 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// From an engine.
    pub(crate) fn new(id: String) -> Option<Self> {
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(Self(id))
    }

    /// Whether it begins so.
    #[must_use]
    pub fn starts_with(&self, prefix: &str) -> bool {
        self.0.starts_with(prefix)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A container at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::locate) struct Inspected {
    /// Which one.
    pub(in crate::locate) id: ContainerId,
    /// `running`, `paused`, `exited` and so on.
    pub(in crate::locate) status: String,
    /// Its first process, in the engine's PID namespace, while it runs.
    pub(in crate::locate) pid: Option<i32>,
    /// When that began, as the engine writes it.
    started_at: String,
    /// Where the engine keeps its namespace, in the engine's mount namespace.
    pub(in crate::locate) sandbox: Option<PathBuf>,
    /// Whether it has the namespace of the engine itself.
    pub(in crate::locate) is_in_host_network: bool,
}

impl HeldEngine {
    /// Looks at a container.
    ///
    /// # Errors
    ///
    /// [`EngineError`]: it has none of that name or id, or several; it does not answer.
    pub(in crate::locate) async fn inspect(&self, name: &str) -> Result<Inspected, EngineError> {
        self.ask(async |docker| inspect(docker, name).await).await
    }

    /// Whether a container runs, paused or not.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub async fn runs(&self, id: &ContainerId) -> Result<bool, EngineError> {
        match self.inspect(&id.0).await {
            Ok(seen) => Ok(seen.pid.is_some()),
            Err(error) if error.is_no_such_container() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

async fn inspect(docker: &Docker, name: &str) -> Result<Inspected, Failure> {
    let answer = docker.inspect_container(name, None).await?;
    let id = answer.id.and_then(ContainerId::new);
    let id = id.ok_or_else(|| Failure::Garbage("a container without an id".into()))?;
    let called = answer.name.unwrap_or_default();
    let called = called.trim_start_matches('/');
    if called != name && !id.starts_with(name) {
        // It was renamed between the engine's looking for it and its answer.
        return Err(Failure::NoSuchContainer(format!("that is `{}` now", escaped(called))));
    }
    let state = answer.state.unwrap_or_default();
    let settings = answer.network_settings.unwrap_or_default();
    let mode = answer.host_config.and_then(|config| config.network_mode);
    let pid = state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0);
    Ok(Inspected {
        id,
        status: state.status.map(|status| status.to_string()).unwrap_or_default(),
        pid,
        started_at: state.started_at.unwrap_or_default(),
        sandbox: settings.sandbox_key.filter(|key| key.starts_with('/')).map(PathBuf::from),
        is_in_host_network: mode.as_deref() == Some("host"),
    })
}
