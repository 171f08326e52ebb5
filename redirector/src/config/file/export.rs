//! What is in force, as a file.

use serde::Serialize;

use super::{DiscoverSpec, NamespaceSpec};

#[derive(Serialize)]
struct Document<'a> {
    namespace: &'a [NamespaceSpec],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    discover: &'a [DiscoverSpec],
}

/// The text of a file that says this. To apply it changes nothing.
///
/// # Panics
///
/// Never: every value has a text form.
#[must_use]
pub fn to_toml(namespaces: &[NamespaceSpec], discover: &[DiscoverSpec]) -> String {
    toml::to_string(&Document { namespace: namespaces, discover }).expect("every value has a text form")
}
