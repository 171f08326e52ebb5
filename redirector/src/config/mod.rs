//! What the user wrote, as validated types: targets, matches, destinations, rules.
//!
//! Everything here is pure. Each type has one text form, read by [`std::str::FromStr`] and written by
//! `Display`, which the command line, the API and the output share. It does not open, resolve or look anything
//! up.

mod container;
mod destination;
mod error;
pub mod file;
mod flaw;
mod flow;
mod interface;
mod label;
mod listeners;
mod matching;
pub(crate) mod meant;
mod ports;
mod prefix;
mod protocol;
mod rule;
mod set;
mod socket;
mod source;
mod target;

pub use container::{Container, Engine};
pub use destination::{Destination, DestinationPort, Host};
pub use error::ParseError;
pub use flaw::Flaw;
pub use flow::{FlowSpec, Transport};
pub use interface::Interface;
pub use label::{Label, has_rules, rules_of};
pub use listeners::Listeners;
pub use matching::Match;
pub use ports::PortSet;
pub(crate) use ports::without;
pub use protocol::Protocol;
pub(crate) use rule::is_default_priority;
pub use rule::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_IDLE_TIMEOUT, OnUnavailable, Origin, Rule, RuleName, RuleSpec, Span,
};
pub use set::SetName;
pub use socket::socket_path;
pub use source::Source;
pub use target::Target;

/// How a value is written, in few words, for the schema of files.
trait TextForm {
    const FORM: &'static str;
}

macro_rules! text_forms {
    ($($type:ty: $form:literal),+ $(,)?) => {$(
        impl TextForm for $type {
            const FORM: &'static str = $form;
        }
    )+};
}

text_forms! {
    Destination: "HOST:PORT, TARGET/IP:PORT, original, unix:/PATH, unix:@NAME, reject, drop or pass; PORT `*` is the client's",
    FlowSpec: "PROTOCOL SRC:PORT -> DST:PORT [dev NAME], PROTOCOL tcp or udp, IPv6 in brackets",
    Interface: "NAME of an interface, 1 to 15 bytes; or !NAME, all but that one",
    Label: "KEY or KEY=VALUE, as `docker ps --filter label=` takes it",
    Match: "PROTOCOL:[ADDRESS[/LEN]:]PORTS, as tcp:80,443,8000-8099 or tcp:[fd00::/8]:443; PROTOCOL is tcp, udp or any",
    RuleName: "1 to 64 of A-Z a-z 0-9 . _ -, the first a letter or digit",
    Source: "ADDRESS[/LEN] of clients, without host bits",
    Span: "A length of time, as 500ms, 5s or 1m 30s",
    Target: "netns:NAME, path:/ABS, pid:N, host, docker:NAME, podman:NAME or cookie:N",
}

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

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": <$type as TextForm>::FORM })
            }
        }
    )+};
}

serde_as_text!(Destination, FlowSpec, Interface, Label, Match, RuleName, Source, Span, Target);
