//! The `redirector` binary with faults by injection, for tests. It is no part of what users install.

use std::process::ExitCode;

fn main() -> ExitCode {
    redirector::cli::main()
}
