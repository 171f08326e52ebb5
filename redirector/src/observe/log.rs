//! Logs go to stderr; data has stdout for itself.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Starts logging: `info` and above, or what `RUST_LOG` says. One line per ended connection comes at
/// `redirector::access=debug`.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}
