//! A rule: matches and what is done with what they take.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use redirector_ebpf::PROTOCOL_TCP;

use super::{Destination, Interface, Match, ParseError, Protocol, Source};

/// A rule as the user wrote it: the one type behind the command line and the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleSpec {
    /// `None`: `rule-N`, with the lowest N that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<RuleName>,
    /// One at least.
    #[serde(rename = "match")]
    pub matches: Vec<Match>,
    /// Of these clients only; of all without any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Source>,
    /// What is not taken, although a match names it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Match>,
    /// Of what comes by these interfaces only. Minimum kernel 5.17.
    #[serde(default, rename = "interface", skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<Interface>,
    /// Before every rule with a lower one, whatever they match.
    #[serde(default, skip_serializing_if = "is_default_priority")]
    pub priority: i32,
    /// Exactly one.
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

/// Matches, sources and exceptions that one rule can have, of each.
const MAX_ITEMS: usize = 64;

/// The first that is there a second time, with its number.
fn twice<T: PartialEq>(items: &[T]) -> Option<(usize, &T)> {
    let found = items.iter().enumerate().find(|(index, one)| items[..*index].contains(one));
    found.map(|(index, one)| (index + 1, one))
}

impl RuleSpec {
    /// Checks what one value alone cannot show, of a rule that is attached.
    ///
    /// # Errors
    ///
    /// Names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), ParseError> {
        if self.to == [Destination::Handoff] {
            let why = "destination `handoff`: listeners are handed off by `redirector exec`";
            return Err(ParseError(why.into()));
        }
        self.validate_lease()
    }

    /// As [`Self::validate`], of a rule whose listeners are handed off.
    ///
    /// # Errors
    ///
    /// Names the first thing that is wrong.
    pub fn validate_lease(&self) -> Result<(), ParseError> {
        let error = |why: String| Err(ParseError(why));
        if self.matches.is_empty() {
            return error("a rule needs a match".into());
        }
        for (what, count) in [
            ("matches", self.matches.len()),
            ("sources", self.from.len()),
            ("exceptions", self.except.len()),
            ("interfaces", self.interfaces.len()),
        ] {
            if count > MAX_ITEMS {
                return error(format!("a rule has at most {MAX_ITEMS} {what}, not {count}"));
            }
        }
        if let Some((number, twice)) = twice(&self.matches) {
            return error(format!("match `{twice}` is there twice (number {number})"));
        }
        if let Some((number, twice)) = twice(&self.from) {
            return error(format!("source `{twice}` is there twice (number {number})"));
        }
        if let Some((number, twice)) = twice(&self.except) {
            return error(format!("exception `{twice}` is there twice (number {number})"));
        }
        if let Some((number, twice)) = twice(&self.interfaces) {
            return error(format!("interface `{twice}` is there twice (number {number})"));
        }
        if let Some(never) = self.matches.iter().find(|one| !one.can_come_from(&self.from)) {
            let family =
                if never.prefix.is_some_and(|prefix| prefix.addr().is_ipv6()) { "IPv6" } else { "IPv4" };
            return error(format!("match `{never}` is {family}, and no source is: it would never match"));
        }
        if let Some(outside) =
            self.except.iter().find(|except| !self.matches.iter().any(|one| one.meets(except)))
        {
            return error(format!("exception `{outside}` has nothing in common with a match"));
        }
        if let Some(nothing) = self.matches.iter().find(|one| !one.is_left(&self.from, &self.except)) {
            return error(format!("match `{nothing}`: nothing is left of it without the exceptions"));
        }
        match &self.to[..] {
            [] => return error("a rule needs a destination".into()),
            [_] => {}
            [first, second, ..] => {
                return error(format!("a rule has one destination, not both `{first}` and `{second}`"));
            }
        }
        let takes_udp = self.matches.iter().find(|one| one.protocol != Protocol::Tcp);
        if let (Some(udp), [to]) = (takes_udp, &self.to[..])
            && !matches!(to, Destination::Pass | Destination::Reject | Destination::Drop)
        {
            return error(format!(
                "match `{udp}`: UDP cannot be taken to `{to}`, only to `pass`, `reject` or `drop`; of TCP write `{}`",
                Match { protocol: Protocol::Tcp, ..udp.clone() }
            ));
        }
        if self.coexist && self.to == [Destination::Original] {
            return error(
                "destination `original`: another redirector may take what is on its way to the application, so not with `coexist`"
                    .into(),
            );
        }
        if self.connect_timeout.0.is_zero() {
            return error("connect time-out `0s`: must be longer than 0".into());
        }
        Ok(())
    }

    /// Whether a TCP connection is one of the rule's, other rules and by which interface it came apart.
    #[must_use]
    pub fn takes(&self, client: IpAddr, destination: SocketAddr) -> bool {
        (self.from.is_empty() || self.from.iter().any(|source| source.contains(client)))
            && self.matches.iter().any(|one| one.contains(PROTOCOL_TCP, destination))
            && !self.except.iter().any(|one| one.contains(PROTOCOL_TCP, destination))
    }

    /// The rule under its name.
    #[must_use]
    pub fn named(self, name: RuleName) -> Rule {
        let Self {
            name: _,
            matches,
            from,
            except,
            interfaces,
            priority,
            to,
            on_unavailable,
            connect_timeout,
            idle_timeout,
            coexist,
        } = self;
        let to = to.into_iter().next().expect("`validate` saw exactly one");
        Rule {
            name,
            matches,
            from,
            except,
            interfaces,
            priority,
            to,
            on_unavailable,
            connect_timeout,
            idle_timeout,
            coexist,
        }
    }
}

/// A rule of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Unique in the namespace.
    pub name: RuleName,
    /// One at least.
    pub matches: Vec<Match>,
    /// As [`RuleSpec::from`].
    pub from: Vec<Source>,
    /// As [`RuleSpec::except`].
    pub except: Vec<Match>,
    /// As [`RuleSpec::interfaces`].
    pub interfaces: Vec<Interface>,
    /// As [`RuleSpec::priority`].
    pub priority: i32,
    /// Where its connections go.
    pub to: Destination,
    /// What a client sees while the rule is unavailable.
    pub on_unavailable: OnUnavailable,
    /// As [`RuleSpec::connect_timeout`].
    pub connect_timeout: Span,
    /// As [`RuleSpec::idle_timeout`].
    pub idle_timeout: Span,
    /// As [`RuleSpec::coexist`].
    pub coexist: bool,
}

impl Rule {
    /// Whether both say the same, names apart.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let Self {
            name: _,
            matches,
            from,
            except,
            interfaces,
            priority,
            to,
            on_unavailable,
            connect_timeout,
            idle_timeout,
            coexist,
        } = self;
        *matches == other.matches
            && *from == other.from
            && *except == other.except
            && *interfaces == other.interfaces
            && *priority == other.priority
            && *to == other.to
            && *on_unavailable == other.on_unavailable
            && *connect_timeout == other.connect_timeout
            && *idle_timeout == other.idle_timeout
            && *coexist == other.coexist
    }
}

/// 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(String);

impl RuleName {
    /// `rule-N`.
    #[must_use]
    pub fn numbered(number: usize) -> Self {
        Self(format!("rule-{number}"))
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
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
            && text.as_bytes()[0].is_ascii_alphanumeric();
        if !fits {
            return Err(ParseError(format!(
                "rule name `{}`: 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit",
                text.escape_debug()
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a client sees while a rule's listener or destination cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
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
        let error = |why: &str| ParseError(format!("time `{}`: {why}", text.escape_debug()));
        let span = humantime::parse_duration(text).map_err(|_| error("write it as `500ms`, `5s` or `1h`"))?;
        if span > Duration::from_secs(24 * 24 * 3600) {
            return Err(error("longer than 24 days"));
        }
        Ok(Self(span))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}
