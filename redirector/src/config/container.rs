//! How a user names a container.

use std::fmt;

use super::ParseError;

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// Docker Engine.
    Docker,
    /// Podman.
    Podman,
}

impl Engine {
    /// Each of them.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Podman];
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        })
    }
}

/// A container by its name, its id, or so much of its id that it is the only one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Container {
    /// Who runs it.
    pub engine: Engine,
    /// As both engines allow them: ASCII letters, digits, `_`, `.` and `-`.
    pub name: String,
}

impl Container {
    /// Reads what stands after `docker:` or `podman:`.
    pub(crate) fn parse(engine: Engine, name: &str) -> Result<Self, ParseError> {
        let shown = name.escape_debug();
        let why = if name.is_empty() {
            "the name is empty".to_owned()
        } else if name.starts_with('/') && !name[1..].contains('/') {
            // As `inspect` shows it.
            "a container's name holds no `/`".to_owned()
        } else if name.contains('/') {
            format!("`{shown}` is an image, not a container: a container's name holds no `/`")
        } else if name.len() > 255 {
            "the name is longer than 255 bytes".to_owned()
        } else if !name.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            format!("`{shown}` does not begin with a letter or a digit, as names of containers do")
        } else if let Some(other) =
            name.chars().find(|one| !one.is_ascii_alphanumeric() && !"_.-".contains(*one))
        {
            format!("a container's name holds no `{}`", other.escape_debug())
        } else {
            return Ok(Self { engine, name: name.into() });
        };
        Err(ParseError(why))
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.engine, self.name)
    }
}
