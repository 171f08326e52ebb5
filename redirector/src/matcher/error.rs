//! Rules that do not fit.

use redirector_ebpf::image::{MOST, interfaces};

/// Why rules do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// What has to be told apart takes more room than the kernel gives to one value.
    #[error(
        "compiled, the rules of this namespace take more than {} MiB: too many overlap in destination, port and source",
        (MOST * 4) >> 20
    )]
    TooLarge,
    /// To find out what has to be told apart would take too long.
    #[error(
        "the rules of this namespace are too many to be compiled, or too many overlap in destination, port and source"
    )]
    TooMuchWork,
    /// Each interface that a rule names has a table of its own.
    #[error("the rules of this namespace name more than {} interfaces", interfaces::MAX)]
    TooManyInterfaces,
}
