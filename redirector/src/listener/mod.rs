//! Listening sockets: made inside a namespace, accepted from outside.
//!
//! A listener is bound to a loopback address and a high port, so that it cannot be reached from the network
//! but by steering; it is IPv4 or IPv6, never both. Whoever makes one runs inside the namespace: `netns::enter`.

mod accept;
mod addresses;
mod options;
mod socket;

pub use accept::{AcceptEnd, accept_all, accept_until};
pub use addresses::{Client, OriginalDst};
pub use options::set_tcp_options;
pub use socket::{BindError, Listener, bind, bind_pair, cookies};
