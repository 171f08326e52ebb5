//! Rules that follow their container: to its next namespace when it starts again, to another container that gets its
//! name. Meanwhile they wait.
//!
//! A rule follows what the user wrote, a name or an id. Which container that was is kept as well, so that it can be
//! told when it is another one.

mod catch_up;
mod follower;
mod news;
mod plan;

pub(crate) use follower::{RETRIES, follow};
pub(crate) use news::News;
