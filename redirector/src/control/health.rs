//! How a rule fares: a part of the documents of `list` and `explain`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How a rule fares.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HealthView {
    /// Why the rule is down, or why its program gets no connections, a phrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Since when it is down, in UTC (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Connections that the relay has accepted for this rule since it is in force as it is; only of a rule that needs the relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<u64>,
    /// Those of them that did not reach the destination, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
    /// The last connection to its destination that could not be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailedDialView>,
}

/// A connection to a destination that could not be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedDialView {
    /// When that was found, in UTC (RFC 3339).
    pub at: String,
    /// Where it was to go.
    pub destination: String,
    /// One of the reasons in `failed`.
    pub reason: String,
    /// The same, a phrase.
    pub why: String,
    /// How many have failed since one succeeded; 0 when one has succeeded since.
    pub in_a_row: u32,
}
