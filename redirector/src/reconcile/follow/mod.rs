//! Rules that follow their target: a container to its next namespace when it starts again, a name to the container or the
//! namespace that gets it. Meanwhile they wait. Rules that only wait for their target come to it the same way, and stay there.
//!
//! A rule follows what the user wrote, a name, a path or an id. Which container that was is kept as well, so that it can be
//! told when it is another one.

mod catch_up;
mod follower;
mod looks;
mod names;
mod news;
mod plan;

pub(crate) use follower::follow;
pub(crate) use looks::RETRIES;
pub(crate) use names::follow_names;
pub(crate) use news::News;
