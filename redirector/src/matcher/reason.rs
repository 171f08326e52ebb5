//! Why a rule takes a flow, and why those before it in the order do not: the decision, told in words of the rules.
//!
//! It decides nothing. Which rule takes the flow it is told by whoever has asked the [`super::Image`] or the kernel; where the
//! rules as users write them say otherwise, that is an error.

use std::fmt;

use super::{Placed, order::Precedence};
use crate::config::{FlowSpec, Match, Rule, Source};

/// One match of a rule with one of its sources.
#[derive(Clone, Copy, Debug)]
pub struct NamedCell<'a> {
    /// Its rule.
    pub rule: &'a Rule,
    /// One of the rule's.
    pub matching: &'a Match,
    /// One of the rule's; `None` where it names none.
    pub source: Option<Source>,
}

impl<'a> NamedCell<'a> {
    fn precedence(&self) -> Precedence<'a> {
        Precedence::of(self.rule, self.matching, self.source)
    }
}

/// What keeps a cell from taking a flow. The greater, the nearer it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Miss {
    /// The match is of another protocol.
    Protocol,
    /// The match is of other destinations.
    Address,
    /// The match is of other ports.
    Port,
    /// The source is of other clients.
    Client,
    /// The exception with this number leaves the flow out.
    Exception(usize),
    /// The rule is for what comes by other interfaces.
    Interface,
    /// None: another cell of the rule takes the flow, and comes later in the order than the one that decides.
    Order,
}

/// A rule that comes before the one that decides, or any rule where none does, and why it does not.
#[derive(Clone, Copy, Debug)]
pub struct Missed<'a> {
    /// The cell that comes nearest to taking it.
    pub cell: NamedCell<'a>,
    /// Why it does not.
    pub why: Miss,
    /// Whether any interface that the rule names is there.
    presence: Presence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Some,
    None,
}

impl fmt::Display for Missed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NamedCell { rule, matching, source } = self.cell;
        match self.why {
            Miss::Protocol => write!(f, "its match `{matching}` is of another protocol"),
            Miss::Address => write!(f, "its match `{matching}` is of other addresses"),
            Miss::Port => write!(f, "its match `{matching}` is of other ports"),
            Miss::Client => match source {
                Some(source) if rule.from.len() > 1 => {
                    write!(f, "the client is not in `{source}`, nor in another of its `from`")
                }
                Some(source) => write!(f, "the client is not in `{source}`"),
                None => f.write_str("it is of other clients"),
            },
            Miss::Exception(number) => match rule.except.get(number) {
                Some(except) => write!(f, "its exception `{except}` leaves it out"),
                None => f.write_str("an exception leaves it out"),
            },
            Miss::Interface => {
                let names: Vec<_> = rule.interfaces.iter().map(|one| format!("`{}`", one.as_str())).collect();
                let names = names.join(", ");
                if rule.excludes_interfaces() {
                    return write!(f, "it is for what comes by any interface but {names}");
                }
                write!(f, "it is for what comes by {names}")?;
                match self.presence {
                    Presence::None => f.write_str(", and nothing of that is there"),
                    Presence::Some => Ok(()),
                }
            }
            Miss::Order => write!(f, "its match `{matching}` takes it as well, and comes later in the order"),
        }
    }
}

/// A decision in words of the rules.
#[derive(Clone, Debug)]
pub struct Account<'a> {
    /// The cell that takes the flow.
    pub decides: Option<NamedCell<'a>>,
    /// Every rule with a cell before it, in the order of their first cells; all rules where none takes the flow.
    pub before: Vec<Missed<'a>>,
}

/// The rules as users write them say something else than what was decided: a mistake of this program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The rule that is said to decide has no cell that takes the flow.
    #[error("rule `{0}` was decided on, and none of its matches takes the flow")]
    Takes(String),
    /// A cell of another rule comes first and takes it.
    #[error("rule `{first}` takes the flow, and {} was decided on", decided.as_ref().map_or("none".into(), |name| format!("rule `{name}`")))]
    Before {
        /// That rule.
        first: String,
        /// Which was decided on.
        decided: Option<String>,
    },
    /// No rule has this index.
    #[error("rule number {0} was decided on, and there is none")]
    NoSuchRule(u32),
}

/// Tells a decision about a flow that comes by an interface with this index: that the rule with this index takes it.
///
/// # Errors
///
/// [`Disagreement`].
pub fn account<'a>(
    rules: &[Placed<'a>],
    (flow, ingress): (&FlowSpec, u32),
    decided: Option<u32>,
) -> Result<Account<'a>, Disagreement> {
    let find =
        |index| rules.iter().find(|placed| placed.index == index).ok_or(Disagreement::NoSuchRule(index));
    let decided = decided.map(find).transpose()?;
    let miss = |placed: &Placed<'a>, cell: NamedCell<'a>| miss(placed, cell, flow, ingress);
    let name = |rule: &Rule| rule.name.to_string();
    let decides = match decided {
        None => None,
        Some(placed) => {
            let taking = cells(placed.rule).filter(|cell| miss(placed, *cell).is_none());
            let first = taking.min_by_key(NamedCell::precedence);
            Some(first.ok_or_else(|| Disagreement::Takes(name(placed.rule)))?)
        }
    };
    let last = decides.map(|cell| cell.precedence());
    let mut before = Vec::new();
    for placed in rules.iter().filter(|placed| decided.is_none_or(|one| one.index != placed.index)) {
        let (mut first, mut nearest): (Option<Precedence<'_>>, Option<Missed<'a>>) = (None, None);
        let mut later = None;
        for cell in cells(placed.rule) {
            let (precedence, why) = (cell.precedence(), miss(placed, cell));
            if last.is_some_and(|last| precedence > last) {
                if why.is_none() {
                    later = Some(cell);
                }
                continue;
            }
            let Some(why) = why else {
                let decided = decided.map(|placed| name(placed.rule));
                return Err(Disagreement::Before { first: name(placed.rule), decided });
            };
            first = Some(first.map_or(precedence, |first| first.min(precedence)));
            if nearest.is_none_or(|nearest| why > nearest.why) {
                let presence = if placed.interfaces.is_empty() { Presence::None } else { Presence::Some };
                nearest = Some(Missed { cell, why, presence });
            }
        }
        if let (Some(first), Some(nearest)) = (first, nearest) {
            let missed = later.map_or(nearest, |cell| Missed { cell, why: Miss::Order, ..nearest });
            before.push((first, missed));
        }
    }
    before.sort_by_key(|(first, _)| *first);
    Ok(Account { decides, before: before.into_iter().map(|(_, missed)| missed).collect() })
}

fn cells(rule: &Rule) -> impl Iterator<Item = NamedCell<'_>> {
    let sources = move || {
        let named = rule.from.iter().copied().map(Some);
        named.chain(rule.from.is_empty().then_some(None))
    };
    rule.matches
        .iter()
        .flat_map(move |matching| sources().map(move |source| NamedCell { rule, matching, source }))
}

/// `None`: it takes the flow.
fn miss(placed: &Placed<'_>, cell: NamedCell<'_>, flow: &FlowSpec, ingress: u32) -> Option<Miss> {
    let NamedCell { rule, matching, source } = cell;
    let (protocol, to) = (flow.protocol.number(), flow.destination);
    if !matching.protocol.includes(protocol) {
        Some(Miss::Protocol)
    } else if matching.prefix.is_some_and(|prefix| !prefix.contains(&to.ip())) {
        Some(Miss::Address)
    } else if !matching.ports.contains(to.port()) {
        Some(Miss::Port)
    } else if source.is_some_and(|source| !source.contains(flow.source.ip())) {
        Some(Miss::Client)
    } else if let Some(number) = rule.except.iter().position(|except| except.contains(protocol, to)) {
        Some(Miss::Exception(number))
    } else if !rule.interfaces.is_empty()
        && placed.interfaces.contains(&ingress) == rule.excludes_interfaces()
    {
        Some(Miss::Interface)
    } else {
        None
    }
}
