//! Which listeners a program gets by hand-off.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which listeners a program gets with the answer to its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Listeners {
    /// One for IPv4 and one for IPv6
    #[default]
    #[value(alias = "pair")]
    #[serde(alias = "pair")]
    Both,
    /// One for IPv4 only
    #[value(alias = "ipv4")]
    #[serde(alias = "ipv4")]
    V4,
    /// One for IPv6 only
    #[value(alias = "ipv6")]
    #[serde(alias = "ipv6")]
    V6,
    /// One IPv6 socket for both, IPv4 addresses as ::ffff:a.b.c.d
    #[value(alias = "v4v6")]
    #[serde(alias = "v4v6")]
    Dual,
}

impl Listeners {
    /// Whether it is what a program gets that does not say.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "both",
            Self::V4 => "v4",
            Self::V6 => "v6",
            Self::Dual => "dual",
        })
    }
}
