//! What failed, in the API's words.

use crate::{
    config::Target,
    control::{Code, Error},
    sys,
    text::chain,
};

/// A call about a target has failed.
pub(crate) fn failed(call: &str, target: &Target, error: &(dyn std::error::Error + 'static)) -> Error {
    Error::new(Code::Failed, format!("{call} `{target}`: {}", chain(error)))
}

/// Runs work that blocks off the data path's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = sys::blocking::blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::chain(Code::Failed, &error)))
}
