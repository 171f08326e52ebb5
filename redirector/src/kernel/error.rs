//! What can go wrong with a program and its maps.

use std::io;

use crate::sys::SyscallError;

/// Why an instance could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The embedded object is not the one that this code was written for.
    #[error("the kernel object: {0}")]
    Object(String),
    /// The kernel does not take it.
    #[error("bpf BPF_PROG_LOAD{}{log}", if log.is_empty() { "" } else { ": the verifier says: " })]
    Program {
        /// What the verifier says, the end of it.
        log: String,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// What was prepared is not for the program that is there now.
    #[error("the rules were changed by somebody else meanwhile")]
    Outdated,
    /// A call on its maps or its link.
    #[error("kernel program's maps and link")]
    Syscall(#[from] SyscallError),
}

impl InstanceError {
    /// The errno at the end of the chain, where there is one.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Object(_) | Self::Outdated => None,
            Self::Program { source, .. } => source.raw_os_error(),
            Self::Syscall(error) => error.source.raw_os_error(),
        }
    }
}
