//! The `redirector` binary. All of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    redirector::cli::main()
}
