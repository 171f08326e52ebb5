//! What the user wrote, as validated types: targets, matches, destinations, rules.
//!
//! Everything here is pure. Each type has one text form, read by [`std::str::FromStr`] and written by
//! `Display`, which the command line, the API and the output share. It does not open, resolve or look anything
//! up.

mod container;
mod destination;
mod interface;
mod matching;
mod ports;
mod protocol;
mod rule;
mod source;
mod target;

pub use container::{Container, Engine};
pub use destination::{Destination, DestinationPort, Host};
pub use interface::Interface;
pub use matching::Match;
pub use ports::PortSet;
pub(crate) use ports::without;
pub use protocol::Protocol;
pub(crate) use rule::is_default_priority;
pub use rule::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, OnUnavailable, Rule, RuleName, RuleSpec, Span,
};
pub use source::Source;
pub use target::Target;

/// Why a text is not what it should be. Its text names the offending part and shows the corrected form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(pub(crate) String);

/// Serde by way of the text form.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

serde_as_text!(Destination, Interface, Match, RuleName, Source, Span, Target);
