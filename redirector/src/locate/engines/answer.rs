//! What engines say, whatever they speak.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use super::error::NoAnswer;
use crate::{config::Container, text::escaped};

/// What an engine calls a container for as long as that exists.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct ContainerId(String);

impl ContainerId {
    /// From an engine. `None` where it could not be shown, or asked for.
    pub(crate) fn new(id: String) -> Option<Self> {
        let is_id = (1..=255).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
        is_id.then_some(Self(id))
    }

    /// Whether it begins so.
    #[must_use]
    pub fn starts_with(&self, prefix: &str) -> bool {
        self.0.starts_with(prefix)
    }
}

impl AsRef<str> for ContainerId {
    fn as_ref(&self) -> &str {
        &self.0
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
    /// What it is called now: its id where it has no name.
    pub(in crate::locate) name: String,
    /// `running`, `paused`, `exited` and so on.
    pub(in crate::locate) status: String,
    /// Its first process, in the engine's PID namespace, while it runs.
    pub(in crate::locate) pid: Option<i32>,
    /// When that began, as the engine writes it.
    pub(in crate::locate) started_at: String,
    /// Where the engine keeps its namespace, in the engine's mount namespace.
    pub(in crate::locate) sandbox: Option<PathBuf>,
    /// Whether it has the namespace of the engine itself.
    pub(in crate::locate) is_in_host_network: bool,
}

impl Inspected {
    /// As an answer to the question for `name`, without what cannot be.
    pub(super) fn checked(self, name: &str) -> Result<Self, NoAnswer> {
        if self.name != name && !self.id.starts_with(name) {
            // It was renamed between the engine's looking for it and its answer.
            return Err(NoAnswer::NoSuchContainer(format!("that is `{}` now", escaped(&self.name))));
        }
        Ok(Self {
            pid: self.pid.filter(|pid| *pid > 0),
            sandbox: self.sandbox.filter(|path| path.is_absolute()),
            ..self
        })
    }
}

/// What a container or an image is labelled with.
pub type Labels = BTreeMap<String, String>;

/// A container that runs, and was found by a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Which one.
    pub id: ContainerId,
    /// What it is called.
    pub name: String,
    /// Its labels, those that it has from its image among them.
    pub labels: Labels,
    /// What the engine calls its image.
    pub image: String,
    /// Whether it has the namespace of the engine itself.
    pub is_in_host_network: bool,
}

/// Something happened to a container: it started, say, or has another name now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    pub(super) id: Option<ContainerId>,
    /// What it is called now.
    pub(super) name: Option<String>,
}

impl Happened {
    /// To which container.
    #[must_use]
    pub fn id(&self) -> Option<&ContainerId> {
        self.id.as_ref()
    }

    /// Whether it may be this one of the engine that tells it.
    #[must_use]
    pub fn concerns(&self, container: &Container, id: Option<&ContainerId>) -> bool {
        self.name.as_deref() == Some(&container.name)
            || self.id.as_ref().is_some_and(|own| Some(own) == id || own.starts_with(&container.name))
    }
}
