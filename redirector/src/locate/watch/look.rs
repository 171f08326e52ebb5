//! How witnesses are looked for.

use std::{collections::HashSet, io};

use crate::{
    locate::witness::{Witnesses, find, sees_host},
    netns::NetnsFile,
};

/// How witnesses are looked for: in `/proc`, but for tests.
pub(super) trait Look: Clone + Send + Sync + 'static {
    /// As [`find()`]. Blocks.
    fn find(&self, wanted: &HashSet<NetnsFile>) -> io::Result<Witnesses>;

    /// As [`sees_host()`].
    fn sees_host(&self) -> bool;
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Proc;

impl Look for Proc {
    fn find(&self, wanted: &HashSet<NetnsFile>) -> io::Result<Witnesses> {
        find(wanted)
    }

    fn sees_host(&self) -> bool {
        sees_host().is_ok()
    }
}
