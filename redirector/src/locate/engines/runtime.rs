//! What a container engine can be asked, whatever it speaks.

use std::{fmt, path::Path};

use futures_util::{future::BoxFuture, stream::BoxStream};

use super::{
    answer::{ContainerId, Happened, Inspected, Labelled, Labels},
    error::NoAnswer,
};
use crate::config::Label;

/// What is being asked.
pub(in crate::locate) type Asking<'a, T> = BoxFuture<'a, Result<T, NoAnswer>>;

/// What happens to containers, in the engine's order. It ends with the engine.
pub(in crate::locate) type Happenings = BoxStream<'static, Result<Happened, NoAnswer>>;

/// Begins to talk with an engine at this socket, which stays the same one for as long as the answer is used.
pub(in crate::locate) type Connect = fn(&Path) -> Asking<'_, Box<dyn Runtime>>;

/// A container engine: six questions, and no more.
///
/// Who implements it translates. How long an answer may take, which errors name the engine, who listens at its socket, and
/// whether an answer can be meant are [`super::HeldEngine`]'s concern. A question whose future is dropped is given up.
pub(in crate::locate) trait Runtime: fmt::Debug + Send + Sync {
    /// Looks at a container by its name, its id, or what its id begins with.
    fn inspect<'a>(&'a self, name: &'a str) -> Asking<'a, Inspected>;

    /// Whether a container runs, paused or not.
    fn running<'a>(&'a self, id: &'a ContainerId) -> Asking<'a, bool> {
        Box::pin(async move {
            match self.inspect(id.as_ref()).await {
                Ok(seen) => Ok(seen.pid.is_some_and(|pid| pid > 0)),
                Err(NoAnswer::NoSuchContainer(_)) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// The containers that run, paused or not, and have a label. More than those do no harm.
    fn labelled<'a>(&'a self, label: &'a Label) -> Asking<'a, Vec<Labelled>>;

    /// The names of all containers that run, paused or not.
    fn names(&self) -> Asking<'_, Vec<String>>;

    /// The labels of an image, by what the engine calls it where it says which containers have it.
    fn image_labels<'a>(&'a self, image: &'a str) -> Asking<'a, Labels>;

    /// What happens to containers: that they start, end, go, or have another name. All that happens after this call is told.
    fn events(&self) -> Asking<'_, Happenings>;

    /// Which version of its API it and we speak.
    fn api_version(&self) -> String;
}
