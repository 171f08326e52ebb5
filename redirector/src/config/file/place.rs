//! Where something stands in a file.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::escaped;

/// A place, as editors count: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Where a namespace, or a discover, and its rules stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Positions {
    /// The target, or where the table begins.
    pub(super) own: Position,
    pub(super) rules: Vec<Position>,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub place: Position,
    /// For people: one line.
    pub message: String,
    /// A known mend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Problem {
    pub(super) fn new(place: Position, message: String) -> Self {
        Self { place, message, hint: None }
    }

    /// serde repeats a file's words as they are, control characters too.
    pub(super) fn in_one_line(self) -> Self {
        let Self { place, message, hint } = self;
        Self { place, message: escaped(&message), hint: hint.as_deref().map(escaped) }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// Finds the line that an offset is in.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each line begins.
    begins: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self { text, begins: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// The place of a byte; of the end of the text where there are fewer.
    pub(super) fn place(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset);
        let line = self.begins.partition_point(|begin| *begin <= offset);
        let begin = self.begins[line - 1];
        // A byte order mark is no column.
        let before = self.text[begin..offset].trim_start_matches('\u{feff}');
        Position { line, column: before.chars().count() + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters_from_one() {
        let lines = Lines::new("a\n\u{fc}b\n\n");
        for (offset, line, column) in
            [(0, 1, 1), (1, 1, 2), (2, 2, 1), (4, 2, 2), (5, 2, 3), (6, 3, 1), (7, 4, 1), (99, 4, 1)]
        {
            assert_eq!(lines.place(offset), Position { line, column }, "{offset}");
        }
        assert_eq!(Lines::new("").place(0), Position { line: 1, column: 1 });
        assert_eq!(Lines::new("\u{feff}a").place(3), Position { line: 1, column: 1 });
    }
}
