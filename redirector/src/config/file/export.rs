//! What is in force, as a file.

use serde::Serialize;

use super::NamespaceSpec;

#[derive(Serialize)]
struct Document<'a> {
    namespace: &'a [NamespaceSpec],
}

/// The text of a file that says this. To apply it changes nothing.
///
/// # Panics
///
/// Never: every value has a text form.
#[must_use]
pub fn to_toml(namespaces: &[NamespaceSpec]) -> String {
    toml::to_string(&Document { namespace: namespaces }).expect("every value has a text form")
}
