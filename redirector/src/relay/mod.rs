//! The user-space data path of one TCP connection: copy both ways until both have ended, or one has failed.
//!
//! This module knows neither BPF nor namespaces. It is given two connected streams and does to each what the
//! other's peer does: bytes for bytes, FIN for FIN, RST for RST.

mod buffer;
mod clock;
mod linger;
mod patience;
mod session;
mod stream;
mod tcp;

pub use clock::Clock;
pub use linger::{Linger, Outstanding, Settled, reset, reset_when_closed};
pub use patience::{Lost, Patience};
pub use session::{End, LostBytes, Totals, Traffic, relay};
pub use stream::{Left, Stream};
pub use tcp::{Hold, Tcp};
