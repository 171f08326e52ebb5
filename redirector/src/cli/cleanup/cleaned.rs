//! What was cleaned up, and what was not.

use std::path::PathBuf;

use serde::Serialize;

use super::holders::ProgramHolder;
use crate::kernel::AttachedProgram;

/// The document of `redirector cleanup --json`.
#[derive(Debug, Serialize)]
pub(super) struct Cleaned {
    pub(super) schema: u32,
    pub(super) removed: Vec<Removed>,
    pub(super) kept: Vec<Kept>,
    /// Programs in TARGET that no running redirector holds; they are left alone.
    pub(super) programs: Vec<Program>,
}

#[derive(Debug, Serialize)]
pub(super) struct Removed {
    pub(super) path: PathBuf,
    /// `socket` or `directory`.
    pub(super) what: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Kept {
    pub(super) path: PathBuf,
    pub(super) why: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct Program {
    #[serde(flatten)]
    pub(super) program: AttachedProgram,
    pub(super) held_by: Vec<ProgramHolder>,
}
