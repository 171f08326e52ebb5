//! What others have said, as text for people.

use std::fmt::Write as _;

/// Control characters as what a programmer would write for them, all others as they are: one line, which no terminal
/// obeys.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// An error and its causes in one line. A cause whose text the line ends with already is not said again.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            write!(text, ": {part}").expect("a String takes all");
        }
        cause = error.source();
    }
    // The verifier's log, for one, has lines.
    text.replace('\n', " | ")
}
