//! Counters and log lines about connections.

mod connections;
mod log;
mod rate_limit;

pub use connections::{Connections, Ended, NotDelivered, NotDeliveredCounts};
pub use log::{Log, init, is_writable, lines_lost};
pub use rate_limit::RateLimit;
