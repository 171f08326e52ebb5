//! From what the user named to a namespace, and how we learn that it died.
//!
//! A target is opened once, and what was opened is what is meant from then on. No fd of it is kept: our
//! listeners would keep the namespace alive all the same, so [`Watch`] looks whether anybody else still does.

mod engines;
mod mounts;
mod open;
mod opener;
mod processes;
mod walk;
mod watch;
mod witness;

pub use engines::{ContainerId, EngineError, Engines, Events, Happened, HeldEngine, Labelled, Labels};
pub use open::{Caller, NAMED, OpenNetns, TargetError, file_of, open};
pub use opener::Opener;
pub use watch::{Died, MountChanges, Registration, Watch};
pub use witness::sees_host;
