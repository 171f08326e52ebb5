//! What a file can hold, for editors.

use schemars::JsonSchema;

use super::{DaemonOptions, DiscoverSpec, NamespaceSpec};

#[expect(dead_code, reason = "only its shape is of use")]
#[derive(JsonSchema)]
#[schemars(title = "redirector's configuration file", deny_unknown_fields)]
struct Document {
    /// How the daemon is set up.
    daemon: Option<DaemonOptions>,
    /// What is steered.
    #[schemars(default)]
    namespace: Vec<NamespaceSpec>,
    /// Which containers have rules because of a label.
    #[schemars(default)]
    discover: Vec<DiscoverSpec>,
}

/// The JSON schema of a file.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Document)
}
