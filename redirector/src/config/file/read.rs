//! From text to values, past everything that is wrong.
//!
//! serde stops at the first thing that it does not like. So each table is read by itself, and what was wrong there is taken
//! out and the rest is read again, until nothing is.

use std::{collections::BTreeMap, ops::Range};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, ValueDeserializer},
};

use super::{
    DaemonOptions, DiscoverSpec, NamespaceSpec, Position, Problem, jargon,
    place::{Lines, Positions},
    table::{Table, Value},
};
use crate::config::{RuleSpec, meant::nearest};

/// The tables of a file.
#[derive(Default)]
pub(super) struct Section<'a> {
    pub(super) daemon: Option<Value<'a>>,
    pub(super) namespaces: Vec<Value<'a>>,
    pub(super) discover: Vec<Value<'a>>,
}

/// Reads one file, and keeps what was wrong with it.
pub(super) struct Reader<'a> {
    lines: Lines<'a>,
    root: DeTable<'a>,
    problems: BTreeMap<Position, Vec<Problem>>,
    /// Where the text is no TOML. What stands around may not be what was meant.
    broken: Vec<usize>,
    /// Where tables begin.
    tables: Vec<usize>,
}

const SECTIONS: [&str; 3] = ["daemon", "namespace", "discover"];

/// Wrong values of one table after which it is not read any more: it is read anew after each.
const MOST_PROBLEMS: usize = 100;

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = Self {
            lines: Lines::new(text),
            root: root.into_inner(),
            problems: BTreeMap::new(),
            broken: Vec::new(),
            tables: Vec::new(),
        };
        // Until where errors come from one that has been told.
        let mut until = 0;
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            if at >= until {
                let message = error.message().replace('\n', ", ");
                // What is not closed takes all that follows for its own.
                let is_open = message.contains("between array elements") || message.contains("inline table");
                let end = if is_open { None } else { text[at..].find('\n') };
                until = end.map_or(text.len(), |end| at + end + 1);
                let begin = text[..at.min(text.len())].rfind('\n').map_or(0, |before| before + 1);
                let line = text[begin..].lines().next().unwrap_or_default();
                let (message, hint) = jargon::of_line(message, line);
                reader.report_at(at, message, hint);
            }
            reader.broken.push(at);
        }
        reader
    }

    /// All that was wrong, in the order of the file.
    pub(super) fn finish(self) -> Vec<Problem> {
        self.problems.into_values().flatten().collect()
    }

    pub(super) fn report(&mut self, place: Position, message: String, hint: Option<String>) {
        let problem = Problem { place, message, hint }.in_one_line();
        let there = self.problems.entry(place).or_default();
        if there.iter().all(|known| known.message != problem.message) {
            there.push(problem);
        }
    }

    fn report_at(&mut self, at: usize, message: String, hint: Option<String>) {
        self.report(self.lines.place(at), message, hint);
    }

    /// The tables of the file, by their names.
    pub(super) fn sections(&mut self) -> Section<'a> {
        let mut section = Section::default();
        let root = std::mem::take(&mut self.root).into_iter();
        let (known, unknown): (Vec<_>, Vec<_>) =
            root.partition(|(key, _)| SECTIONS.contains(&key.get_ref().as_ref()));
        let unknown =
            unknown.iter().map(|(key, _)| self.unknown_key(key.span().start, key.get_ref(), &SECTIONS));
        let misspelt: Vec<_> = unknown.flatten().collect();
        for (key, value) in known {
            match key.get_ref().as_ref() {
                "daemon" => section.daemon = Some(value),
                // What belongs below one of `[[namespaces]]` has been told.
                name if value.get_ref().is_table() && misspelt.iter().any(|one| one == name) => {}
                "namespace" => section.namespaces = self.tables_of("namespace", value),
                _ => section.discover = self.tables_of("discover", value),
            }
        }
        for one in section.namespaces.iter().chain(&section.discover) {
            self.tables.push(one.span().start);
            let rules = one.get_ref().as_table().and_then(|table| table.get("rule"));
            let rules = rules.and_then(|rules| rules.get_ref().as_array());
            self.tables
                .extend(rules.into_iter().flat_map(|rules| rules.iter()).map(|rule| rule.span().start));
        }
        self.tables.extend(section.daemon.iter().map(|daemon| daemon.span().start));
        self.tables.sort_unstable();
        section
    }

    /// The tables of an array of them.
    fn tables_of(&mut self, name: &str, value: Value<'a>) -> Vec<Value<'a>> {
        let at = value.span().start;
        match value.into_inner() {
            DeValue::Array(array) => array.into_iter().collect(),
            other => {
                let message = format!("`{name}`: expected an array of tables, found {}", other.type_str());
                let hint = format!("each begins with a line `[[{name}]]`");
                self.report_at(at, message, Some(hint));
                Vec::new()
            }
        }
    }

    /// Gives the key that may have been meant.
    fn unknown_key(&mut self, at: usize, key: &str, known: &[&str]) -> Option<String> {
        let mut meant = None;
        if self.broken.contains(&at) {
            return meant;
        }
        let hint = match nearest(key, known.iter().copied()) {
            Some(one) => {
                meant = Some(one.to_owned());
                format!("did you mean `{one}`?")
            }
            None => {
                let known: Vec<_> = known.iter().map(|one| format!("`{one}`")).collect();
                format!("here can be {}", known.join(", "))
            }
        };
        self.report_at(at, format!("unknown key `{}`", key.escape_debug()), Some(hint));
        meant
    }

    /// Whether the text of the table that begins there is no TOML somewhere.
    fn is_broken(&self, begin: usize) -> bool {
        let next = self.tables.partition_point(|table| *table <= begin);
        let end = self.tables.get(next).copied().unwrap_or(usize::MAX);
        self.broken.iter().any(|at| (begin..end).contains(at))
    }

    pub(super) fn daemon(&mut self, value: Value<'a>) -> DaemonOptions {
        let mut table = Table::new(value);
        let options: DaemonOptions = self.read(&mut table, "daemon").unwrap_or_default();
        for key in options.relative_paths() {
            let message = format!("`{key}`: the path is not absolute");
            self.report_at(table.at(key, None), message, None);
        }
        options
    }

    /// One namespace and its rules. `None` where its target is not known.
    pub(super) fn namespace(&mut self, mut value: Value<'a>) -> Option<(NamespaceSpec, Positions)> {
        let begin = value.span().start;
        let (rules, has_rules) = self.rules_of("namespace", &mut value);
        let mut table = Table::new(value);
        let spec: Option<NamespaceSpec> = self.read(&mut table, "namespace");
        if let Some((key, why)) = spec.as_ref().and_then(NamespaceSpec::flaw) {
            self.report_at(table.at(key, None), why, None);
        }
        let is_sound = spec.is_some() && table.damaged.is_empty() && !self.is_broken(begin);
        if !has_rules && is_sound {
            let hint = "each begins with a line `[[namespace.rule]]`".to_owned();
            self.report_at(begin, "a namespace needs a rule".into(), Some(hint));
        }
        let cannot_be = |rule: &RuleSpec| spec.as_ref().and_then(|spec| spec.cannot_follow(rule));
        let (read, rules) = self.rules(rules, cannot_be);
        let own = self.lines.place(table.at("target", None));
        spec.map(|spec| (NamespaceSpec { rules: read, ..spec }, Positions { own, rules }))
    }

    /// One discover and its rules.
    pub(super) fn discover(&mut self, mut value: Value<'a>) -> Option<(DiscoverSpec, Positions)> {
        let begin = value.span().start;
        let (rules, _) = self.rules_of("discover", &mut value);
        let mut table = Table::new(value);
        let spec: DiscoverSpec = self.read(&mut table, "discover")?;
        let (read, rules) = self.rules(rules, RuleSpec::cannot_follow);
        let spec = DiscoverSpec { rules: read, ..spec };
        let is_sound = table.damaged.is_empty() && !self.is_broken(begin);
        if let Some((key, why)) = spec.flaw().filter(|_| is_sound) {
            self.report_at(table.at(key, None), why, None);
        }
        Some((spec, Positions { own: self.lines.place(begin), rules }))
    }

    /// Takes the rules out of a table, and whether there is such a key.
    fn rules_of(&mut self, what: &str, value: &mut Value<'a>) -> (Vec<Value<'a>>, bool) {
        let rules = match value.get_mut() {
            DeValue::Table(table) => table.remove("rule"),
            _ => None,
        };
        let is_there = rules.is_some();
        let what = format!("{what}.rule");
        (rules.map(|rules| self.tables_of(&what, rules)).unwrap_or_default(), is_there)
    }

    /// Reads rules, and where they stand.
    fn rules(
        &mut self,
        rules: Vec<Value<'a>>,
        cannot_be: impl Fn(&RuleSpec) -> Option<String>,
    ) -> (Vec<RuleSpec>, Vec<Position>) {
        let (mut read, mut places) = (Vec::new(), Vec::new());
        for rule in rules {
            let place = self.lines.place(rule.span().start);
            if let Some(rule) = self.rule(rule, &cannot_be) {
                read.push(rule);
                places.push(place);
            }
        }
        (read, places)
    }

    fn rule(
        &mut self,
        value: Value<'a>,
        cannot_be: impl Fn(&RuleSpec) -> Option<String>,
    ) -> Option<RuleSpec> {
        let begin = value.span().start;
        let mut table = Table::new(value);
        let rule: RuleSpec = self.read(&mut table, "rule")?;
        if self.is_broken(begin) {
            return Some(rule);
        }
        for flaw in rule.flaws() {
            let is_seen = |key: &&str| table.damaged.iter().any(|damaged| damaged == key);
            if !flaw.seen_by.iter().any(is_seen) && !is_seen(&flaw.key) {
                self.report_at(table.at(flaw.key, flaw.item), flaw.text, None);
            }
        }
        if let Some(why) = cannot_be(&rule) {
            let hint = "name its namespace, or its container".to_owned();
            self.report_at(table.at("to", None), why, Some(hint));
        }
        Some(rule)
    }

    /// Reads a table, without what is wrong in it.
    fn read<T: DeserializeOwned>(&mut self, table: &mut Table<'a>, what: &str) -> Option<T> {
        if !table.value.get_ref().is_table() {
            let found = table.value.get_ref().type_str();
            let message = format!("`{what}`: expected a table, found {found}");
            self.report_at(table.value.span().start, message, None);
            return None;
        }
        for _ in 0..MOST_PROBLEMS {
            let error = match T::deserialize(ValueDeserializer::from(table.value.clone())) {
                Ok(read) => return Some(read),
                Err(error) => error,
            };
            let span = error.span().unwrap_or_else(|| table.value.span());
            // A key that is not known is taken out whole, with the list that it may have.
            let is_key = error.message().starts_with("unknown field");
            if !is_key && let Some((key, whole, elements)) = table.take_list(&span) {
                let good = self.good_elements::<T>(&key, &whole, elements);
                table.damaged.push(key.clone());
                table.put_list(key, whole, good);
                continue;
            }
            let Some((key, at)) = table.take_out(&span) else {
                // Of the table itself: a key that is missing, which the text may have otherwise, or not as TOML.
                let is_there = quoted(error.message()).any(|key| table.damaged.iter().any(|one| one == key));
                if !is_there && !self.is_broken(table.value.span().start) {
                    self.report_at(span.start, format!("{what}: {}", error.message()), None);
                }
                return None;
            };
            // Where the text is no TOML that has been said.
            if !self.broken.iter().any(|broken| at.contains(broken)) {
                table.damaged.extend(self.wrong_value((&key, at.start), span.start, error.message()));
            }
            table.damaged.push(key);
        }
        self.report_at(table.value.span().start, format!("{what}: more than {MOST_PROBLEMS} problems"), None);
        None
    }

    /// Of a list in which something is wrong: each element is read by itself. Gives those that are good; all the others are
    /// told.
    fn good_elements<T: DeserializeOwned>(
        &mut self,
        key: &str,
        whole: &Range<usize>,
        elements: Vec<Value<'a>>,
    ) -> Vec<Value<'a>> {
        let is_broken = self.broken.iter().any(|broken| whole.contains(broken));
        let mut good = Vec::new();
        for element in elements {
            let at = element.span().start;
            let alone = DeArray::from_iter([element.clone()]);
            let alone = Spanned::new(whole.clone(), DeValue::Array(alone));
            let table = DeTable::from_iter([(Spanned::new(0..0, key.to_owned().into()), alone)]);
            let table = Spanned::new(0..0, DeValue::Table(table));
            match T::deserialize(ValueDeserializer::from(table)) {
                Ok(_) => good.push(element),
                Err(_) if is_broken => {}
                // It is not the element: there is to be no list, which is told when it is read without any.
                Err(error) if error.message().starts_with("invalid type: sequence") => {}
                Err(error) => drop(self.wrong_value((key, at), at, error.message())),
            }
        }
        good
    }

    /// Says in words of the file what serde says of a value. Gives another key that may have been meant.
    /// The value begins at `begin`; it may be something inside that is wrong.
    fn wrong_value(&mut self, (key, begin): (&str, usize), at: usize, message: &str) -> Option<String> {
        if message.starts_with("unknown field") {
            // It may be one of a table inside.
            let mut words = quoted(message);
            let unknown = words.next().unwrap_or(key);
            return self.unknown_key(at, unknown, &words.collect::<Vec<_>>());
        }
        let is_serdes = message.starts_with("invalid ") || message.starts_with("unknown variant");
        let (message, hint) = jargon::of_value(key, message).unwrap_or_else(|| {
            // A socket is named by itself, and stands for a key.
            let is_serdes = is_serdes || message.starts_with("socket `");
            (if is_serdes { format!("`{key}`: {message}") } else { message.to_owned() }, None)
        });
        self.report_at(at, message, hint.filter(|_| at == begin));
        None
    }
}

/// What serde names in a message.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2)
}
