//! What is wrong with a text.

/// Why a text is not what it should be. Its text names the offending part and shows the corrected form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);
