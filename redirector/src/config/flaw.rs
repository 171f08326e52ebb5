//! What is wrong with a rule whose values are each well formed.

use std::fmt::Display;

use super::{Destination, Match, ParseError, Protocol, RuleSpec};

/// One thing that is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// The rule's key that is wrong, as files and documents have it.
    pub key: &'static str,
    /// Which of several values there, from 0.
    pub item: Option<usize>,
    /// Keys whose values it was found by: where one of them could not be read, there may be no such flaw.
    pub seen_by: &'static [&'static str],
    /// For people: one line.
    pub text: String,
}

/// Values that one rule can have, of each key.
const MAX_ITEMS: usize = 64;

/// What takes part in matching.
const TRAFFIC: &[&str] = &["match", "from", "except"];

#[derive(Default)]
struct Flaws(Vec<Flaw>);

impl Flaws {
    fn add(
        &mut self,
        (key, item): (&'static str, Option<usize>),
        seen_by: &'static [&'static str],
        text: String,
    ) {
        self.0.push(Flaw { key, item, seen_by, text });
    }

    /// Too many, or one that is there already.
    fn of_list(
        &mut self,
        key: &'static str,
        (one, several): (&str, &str),
        items: &[impl PartialEq + Display],
    ) {
        let count = items.len();
        if count > MAX_ITEMS {
            let text = format!("a rule has at most {MAX_ITEMS} {several}, not {count}");
            // How many are equal of so many is not looked at.
            return self.add((key, Some(MAX_ITEMS)), &[], text);
        }
        for (index, item) in items.iter().enumerate() {
            if items[..index].contains(item) {
                let text = format!("{one} `{item}` is there twice (number {})", index + 1);
                self.add((key, Some(index)), &[], text);
            }
        }
    }
}

impl RuleSpec {
    /// Checks what one value alone cannot show, of a rule that is attached.
    ///
    /// # Errors
    ///
    /// Names the first thing that is wrong.
    pub fn validate(&self) -> Result<(), ParseError> {
        first(self.flaws())
    }

    /// As [`Self::validate`], of a rule whose listeners are handed off.
    ///
    /// # Errors
    ///
    /// Names the first thing that is wrong.
    pub fn validate_lease(&self) -> Result<(), ParseError> {
        first(self.flaws_of_any())
    }

    /// Why it cannot follow a container, if it cannot.
    #[must_use]
    pub fn cannot_follow(&self) -> Option<String> {
        match &self.to[..] {
            [to @ Destination::Inside { target, .. }] if target.is_process() => Some(to.cannot_be_followed()),
            _ => None,
        }
    }

    /// All that is wrong with a rule that is attached.
    #[must_use]
    pub fn flaws(&self) -> Vec<Flaw> {
        let mut flaws = Flaws::default();
        for (index, _) in self.to.iter().enumerate().filter(|(_, to)| **to == Destination::Handoff) {
            let why = "destination `handoff`: listeners are handed off by `redirector exec`";
            flaws.add(("to", Some(index)), &[], why.into());
        }
        flaws.0.extend(self.flaws_of_any());
        flaws.0
    }

    fn flaws_of_any(&self) -> Vec<Flaw> {
        let mut flaws = Flaws::default();
        if self.matches.is_empty() {
            flaws.add(("match", None), &["match"], "a rule needs a match".into());
        }
        flaws.of_list("match", ("match", "matches"), &self.matches);
        flaws.of_list("from", ("source", "sources"), &self.from);
        flaws.of_list("except", ("exception", "exceptions"), &self.except);
        flaws.of_list("interface", ("interface", "interfaces"), &self.interfaces);
        let other = self.interfaces.first().and_then(|first| {
            self.interfaces.iter().position(|one| one.is_excluded() != first.is_excluded())
        });
        if let Some(index) = other {
            let (one, two) = (&self.interfaces[0], &self.interfaces[index]);
            let why = format!(
                "interfaces `{one}` and `{two}`: a rule names those that it takes, or those that it does not"
            );
            flaws.add(("interface", Some(index)), &[], why);
        }
        if !self.matches.is_empty() && flaws.0.iter().all(|flaw| flaw.item != Some(MAX_ITEMS)) {
            self.flaws_of_traffic(&mut flaws);
        }
        self.flaws_of_destination(&mut flaws);
        if self.connect_timeout.0.is_zero() {
            let why = "connect time-out `0s`: must be longer than 0";
            flaws.add(("connect_timeout", None), &["connect_timeout"], why.into());
        }
        flaws.0
    }

    fn flaws_of_traffic(&self, flaws: &mut Flaws) {
        for (index, one) in self.matches.iter().enumerate() {
            if !one.can_come_from(&self.from) {
                let family =
                    if one.prefix.is_some_and(|prefix| prefix.addr().is_ipv6()) { "IPv6" } else { "IPv4" };
                let why = format!("match `{one}` is {family}, and no source is: it would never match");
                flaws.add(("match", Some(index)), TRAFFIC, why);
            } else if !one.is_left(&self.from, &self.except) {
                let why = format!("match `{one}`: nothing is left of it without the exceptions");
                flaws.add(("match", Some(index)), TRAFFIC, why);
            }
        }
        for (index, except) in self.except.iter().enumerate() {
            if !self.matches.iter().any(|one| one.meets(except)) {
                let why = format!("exception `{except}` has nothing in common with a match");
                flaws.add(("except", Some(index)), TRAFFIC, why);
            }
        }
    }

    fn flaws_of_destination(&self, flaws: &mut Flaws) {
        let to = match &self.to[..] {
            [] => return flaws.add(("to", None), &["to"], "a rule needs a destination".into()),
            [to] => to,
            [first, second, ..] => {
                let why = format!("a rule has one destination, not both `{first}` and `{second}`");
                return flaws.add(("to", Some(1)), &[], why);
            }
        };
        let takes_udp = |one: &&Match| one.protocol != Protocol::Tcp;
        let is_taken = !matches!(to, Destination::Pass | Destination::Reject | Destination::Drop);
        if is_taken
            && let Some((index, udp)) = self.matches.iter().enumerate().find(|(_, one)| takes_udp(one))
        {
            let why = format!(
                "match `{udp}`: UDP cannot be taken to `{to}`, only to `pass`, `reject` or `drop`; of TCP write `{}`",
                Match { protocol: Protocol::Tcp, ..udp.clone() }
            );
            flaws.add(("match", Some(index)), &["to"], why);
        }
        if self.coexist && *to == Destination::Original {
            let why = "destination `original`: another redirector may take what is on its way to the application, so not with `coexist`";
            flaws.add(("to", Some(0)), &[], why.into());
        }
    }
}

fn first(flaws: Vec<Flaw>) -> Result<(), ParseError> {
    flaws.into_iter().next().map_or(Ok(()), |flaw| Err(ParseError(flaw.text)))
}
