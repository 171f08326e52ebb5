//! The user-space data path of one TCP connection: copy both ways until both have ended, or one has failed.
//!
//! This module knows neither BPF nor namespaces. It is given two connected streams and does to each what the
//! other's peer does: bytes for bytes, FIN for FIN, RST for RST.

mod buffer;
mod linger;
mod session;
mod stream;

pub use linger::{LINGER_LIMIT, linger, reset, reset_after_last_words};
pub use session::{End, Traffic, relay};
pub use stream::Stream;
