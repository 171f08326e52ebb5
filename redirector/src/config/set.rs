//! Sets of rules: a file is one.

use std::{fmt, path::Path, sync::Arc};

use serde::{Deserialize, Serialize};

/// Whose rules of files are: the path of a file, without links, or a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct SetName(Arc<str>);

impl SetName {
    /// Of what comes without a name, by standard input or the API.
    pub const UNNAMED: &str = "-";

    /// As somebody has said it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Whether nobody has named it.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        &*self.0 == Self::UNNAMED
    }

    /// Whether it is a file in this directory, not below.
    #[must_use]
    pub fn is_in(&self, directory: &str) -> bool {
        Path::new(&*self.0).parent() == Some(Path::new(directory))
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<String> for SetName {
    fn from(name: String) -> Self {
        Self(name.into())
    }
}

impl From<SetName> for String {
    fn from(name: SetName) -> Self {
        name.to_string()
    }
}

impl Default for SetName {
    fn default() -> Self {
        Self::new(Self::UNNAMED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_in_the_directory_of_its_file_and_in_none_above() {
        for (set, directory, expected) in [
            ("/etc/redirector.d/a.toml", "/etc/redirector.d", true),
            ("/etc/redirector.d/a.toml", "/etc/redirector.d/", true),
            ("/etc/redirector.d/more/a.toml", "/etc/redirector.d", false),
            ("/etc/redirector.toml", "/etc/redirector.d", false),
            ("-", "/etc/redirector.d", false),
            ("team", "/", false),
        ] {
            assert_eq!(SetName::new(set).is_in(directory), expected, "{set} {directory}");
        }
        assert!(SetName::default().is_unnamed() && !SetName::new("/a").is_unnamed());
    }
}
