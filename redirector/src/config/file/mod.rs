//! The configuration file: TOML that says which rules namespaces have, and how the daemon is set up.
//!
//! All that is wrong with a file is told at once, each with its place. What can only be found out where the namespaces are
//! is not looked at here.

mod daemon;
mod discover;
mod export;
mod jargon;
mod names;
mod namespace;
mod place;
mod read;
mod schema;
mod table;

pub use self::{
    daemon::{DaemonOptions, LogFormat, LogLevel},
    discover::{DiscoverSpec, Selector},
    export::to_toml,
    names::{name_found_rules, name_rules},
    namespace::NamespaceSpec,
    place::{Position, Problem},
    schema::schema,
};
use self::{
    place::{Lines, Positions},
    read::{Reader, Section},
};

/// The largest file that is read: some 100,000 rules.
pub const MAX_SIZE: usize = 16 << 20;

/// A file without problems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFile {
    /// `[daemon]`.
    pub daemon: DaemonOptions,
    /// Each `[[namespace]]`, every rule with a name.
    pub namespaces: Vec<NamespaceSpec>,
    /// Each `[[discover]]`, every rule with a name.
    pub discover: Vec<DiscoverSpec>,
    /// Where each namespace stands.
    places: Vec<Positions>,
    /// Where each discover stands.
    discover_places: Vec<Positions>,
}

impl ConfigFile {
    /// Reads the content of a file.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in the order of the file.
    pub fn parse(content: &[u8]) -> Result<Self, Vec<Problem>> {
        let text = match std::str::from_utf8(content) {
            Ok(text) => text,
            Err(error) => {
                let good =
                    std::str::from_utf8(&content[..error.valid_up_to()]).expect("it is valid up to there");
                let lines = Lines::new(good);
                let problem = Problem::new(lines.place(good.len()), "not a text in UTF-8".to_owned());
                return Err(vec![problem.with_hint("a configuration file is TOML")]);
            }
        };
        let mut reader = Reader::new(text);
        let file = Self::read(&mut reader);
        let problems = reader.finish();
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    fn read(reader: &mut Reader<'_>) -> Self {
        let Section { daemon, namespaces, discover } = reader.sections();
        let daemon = daemon.map(|table| reader.daemon(table)).unwrap_or_default();
        let (mut specs, mut places) = (Vec::new(), Vec::new());
        for table in namespaces {
            if let Some((spec, place)) = reader.namespace(table) {
                specs.push(spec);
                places.push(place);
            }
        }
        for (namespace, rule, why) in name_rules(&mut specs) {
            let place = places[namespace].rules[rule];
            reader.report(place, why, None);
        }
        let discover = discover.into_iter().filter_map(|table| reader.discover(table));
        let (mut discover, discover_places): (Vec<_>, Vec<Positions>) = discover.unzip();
        for (index, rule, why) in name_found_rules(&mut discover) {
            reader.report(discover_places[index].rules[rule], why, None);
        }
        Self { daemon, namespaces: specs, discover, places, discover_places }
    }

    /// Where a namespace, or a rule of it, stands.
    #[must_use]
    pub fn place(&self, namespace: usize, rule: Option<usize>) -> Option<Position> {
        place(self.places.get(namespace)?, rule)
    }

    /// Where a discover, or a rule of it, stands.
    #[must_use]
    pub fn discover_place(&self, discover: usize, rule: Option<usize>) -> Option<Position> {
        place(self.discover_places.get(discover)?, rule)
    }
}

fn place(places: &Positions, rule: Option<usize>) -> Option<Position> {
    match rule {
        None => Some(places.own),
        Some(rule) => places.rules.get(rule).copied(),
    }
}
