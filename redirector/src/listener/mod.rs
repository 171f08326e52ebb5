//! Listening sockets: made inside a namespace, accepted from outside.
//!
//! A listener is bound to a loopback address and a high port, so that it cannot be reached from the network
//! but by steering. The relay's are IPv4 or IPv6, never both. Whoever makes one runs inside the namespace: `netns::enter`.

mod accept;
mod addresses;
mod bind;
mod inside;
mod mute;
mod options;
mod socket;

pub use accept::{AcceptEnd, accept_ready, accept_until};
pub use addresses::{Client, OriginalDst};
pub use bind::{
    BindError, Bound, Reach, Reaching, Search, bind, bind_for, bind_mute_udp, bind_own_pair, bind_pair,
};
pub use inside::{InsideError, make_inside};
pub use mute::mute;
pub use options::{read_urgent_in_place, set_tcp_options};
pub use socket::{Listener, cookies};
