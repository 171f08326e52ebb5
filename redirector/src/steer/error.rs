//! What failed, in the API's words.

use std::io;

use crate::{
    config::Target,
    control::{Code, Error},
    sys,
    text::chain,
};

/// A call about a target has failed.
pub(crate) fn failed(call: &str, target: &Target, error: &(dyn std::error::Error + 'static)) -> Error {
    let failure = Error::new(Code::Failed, format!("{call} `{target}`: {}", chain(error)));
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    let is_denied = |error: &(dyn std::error::Error + 'static)| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    if causes.any(is_denied) {
        failure.with_hint(
            "the daemon may lack a capability: `redirector doctor`, run as the daemon is, shows which",
        )
    } else {
        failure
    }
}

/// Runs work that blocks off the data path's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let done = sys::blocking::blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::chain(Code::Failed, &error)))
}
