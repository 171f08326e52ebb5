//! A rule: matches and what is done with what they take.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    ops::Deref,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use redirector_ebpf::PROTOCOL_TCP;

use super::{Destination, Interface, Match, ParseError, Source, meant::read_or_guess};

/// A rule as the user wrote it: the one type behind the command line and the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// `None`: `rule-N`, with the lowest N that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RuleName>,
    /// One at least.
    #[serde(default, rename = "match")]
    #[schemars(required, length(min = 1))]
    pub matches: Vec<Match>,
    /// Of these clients only; of all without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    /// What is not taken, although a match names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Match>,
    /// Of what comes by these interfaces only, or with `!` by all but these. Minimum kernel 5.17.
    #[serde(default, rename = "interface", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Before every rule with a lower one, whatever they match.
    #[serde(default, skip_serializing_if = "is_default_priority")]
    pub priority: i32,
    /// Exactly one.
    #[serde(default)]
    #[schemars(required, length(min = 1))]
    pub to: Vec<Destination>,
    /// What a client sees while the rule is unavailable.
    #[serde(default)]
    pub on_unavailable: OnUnavailable,
    /// From the dial's begin to an established connection.
    #[serde(default = "default_connect_timeout")]
    pub connect_timeout: Span,
    /// Without a byte in either direction; `0s` is never.
    #[serde(default = "default_idle_timeout")]
    pub idle_timeout: Span,
    /// It may be in force beside another redirector in the same namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coexist: bool,
}

/// 5 s: the field's usual figure (Envoy's `connect_timeout`), above one retransmitted SYN (1 s) and two (3 s).
pub const DEFAULT_CONNECT_TIMEOUT: Span = Span(Duration::from_secs(5));

/// 1 h: Envoy's default for TCP. Dead peers are found sooner by keep-alive.
pub const DEFAULT_IDLE_TIMEOUT: Span = Span(Duration::from_secs(3600));

fn default_connect_timeout() -> Span {
    DEFAULT_CONNECT_TIMEOUT
}

fn default_idle_timeout() -> Span {
    DEFAULT_IDLE_TIMEOUT
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn is_default_priority(priority: &i32) -> bool {
    *priority == 0
}

impl RuleSpec {
    /// Whether a TCP connection is one of the rule's, other rules and by which interface it came apart.
    #[must_use]
    pub fn takes(&self, client: IpAddr, destination: SocketAddr) -> bool {
        (self.from.is_empty() || self.from.iter().any(|source| source.contains(client)))
            && self.matches.iter().any(|one| one.contains(PROTOCOL_TCP, destination))
            && !self.except.iter().any(|one| one.contains(PROTOCOL_TCP, destination))
    }

    /// Whether its interfaces are those by which nothing comes that it takes.
    #[must_use]
    pub fn excludes_interfaces(&self) -> bool {
        self.interfaces.iter().any(Interface::is_excluded)
    }

    /// The rule under its name. It has no flaws.
    #[must_use]
    pub fn named(self, name: RuleName) -> Rule {
        let to = self.to.first().expect("a rule without flaws has exactly one").clone();
        Rule { name, to, spec: Self { name: None, ..self } }
    }
}

/// A rule of a namespace: what was wanted, under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in the namespace.
    pub name: RuleName,
    /// Where its connections go.
    pub to: Destination,
    spec: RuleSpec,
}

/// What was wanted.
impl Deref for Rule {
    type Target = RuleSpec;

    fn deref(&self) -> &RuleSpec {
        &self.spec
    }
}

impl Rule {
    /// Whether both say the same, names apart.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    /// What has to be wanted to get it.
    #[must_use]
    pub fn to_spec(&self) -> RuleSpec {
        RuleSpec { name: Some(self.name.clone()), ..self.spec.clone() }
    }
}

/// Who made a rule, and who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A configuration file, by `apply` or `run --config`.
    File,
    /// `attach`.
    Api,
    /// A program that holds its listeners, for as long as it does.
    Lease,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Lease => "lease",
        })
    }
}

/// 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(Arc<str>);

impl RuleName {
    /// `rule-N`.
    #[must_use]
    pub fn numbered(number: usize) -> Self {
        Self(format!("rule-{number}").into())
    }

    /// `found-N`.
    #[must_use]
    pub fn found(number: usize) -> Self {
        Self(format!("found-{number}").into())
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuleName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read_or_guess("rule name", text)
    }
}

/// Says why a text is no name of a rule, and does not repeat it.
pub(super) fn parse_name(text: &str) -> Result<RuleName, ParseError> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text.as_bytes()[0].is_ascii_alphanumeric();
    if !fits {
        let why = "1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit";
        return Err(ParseError(why.into()));
    }
    Ok(RuleName(text.into()))
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client sees while a rule's listener or destination cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnUnavailable {
    /// The application's own socket.
    Pass,
    /// RST.
    #[default]
    Reject,
    /// No answer at all.
    Drop,
}

impl fmt::Display for OnUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Reject => "reject",
            Self::Drop => "drop",
        })
    }
}

/// A length of time, written as `5s`, `1m 30s`, `500ms`. At most 24 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read_or_guess("time", text)
    }
}

/// Says why a text is no length of time, and does not repeat it.
pub(super) fn parse_span(text: &str) -> Result<Span, ParseError> {
    let span = humantime::parse_duration(text);
    let span = span.map_err(|_| ParseError("a time is written as `500ms`, `5s` or `1h`".into()))?;
    if span > Duration::from_secs(24 * 24 * 3600) {
        return Err(ParseError("longer than 24 days".into()));
    }
    Ok(Span(span))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}
