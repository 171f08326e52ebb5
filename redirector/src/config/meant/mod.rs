//! What a text that cannot be read could have meant.
//!
//! Every guess goes through the parser before anybody is told of it: what a message says to write is never refused.

mod address;
mod destination;
mod interface;
mod matching;
mod ports;
mod rule;
mod source;
mod target;

use super::ParseError;

/// A type whose texts are guessed at when they cannot be read.
pub(crate) trait Meant: Sized {
    /// Reads a text. An error says why it is none, and suggests nothing.
    fn read(text: &str) -> Result<Self, ParseError>;

    /// What the text may have meant, the likeliest first. Some of them may be no texts of this type either.
    fn guesses(text: &str) -> Vec<String>;
}

/// As many guesses are told.
const MOST: usize = 3;

/// What a text could have meant: nothing that cannot be read.
pub(crate) fn meant<T: Meant>(text: &str) -> Vec<String> {
    let mut meant: Vec<String> = Vec::new();
    for guess in T::guesses(text) {
        if guess != text && meant.len() < MOST && !meant.contains(&guess) && T::read(&guess).is_ok() {
            meant.push(guess);
        }
    }
    meant
}

/// Reads a text; an error names it, says why it is none, and what it could have meant.
pub(super) fn read_or_guess<T: Meant>(what: &str, text: &str) -> Result<T, ParseError> {
    T::read(text).map_err(|ParseError(why)| {
        ParseError(format!("{what} `{}`: {why}{}", text.escape_debug(), told(&meant::<T>(text))))
    })
}

/// The end of a message that suggests these.
fn told(meant: &[String]) -> String {
    if meant.is_empty() {
        return String::new();
    }
    let meant: Vec<_> = meant.iter().map(|one| format!("`{}`", one.escape_debug())).collect();
    format!("; did you mean {}?", meant.join(" or "))
}

/// How much alike two words are that could be meant for each other (Jaro-Winkler).
const ALIKE: f64 = 0.7;

/// Which of the known words is most like this one, if any is.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_by(ALIKE, word, known)
}

/// As [`nearest`], of words that stand where many others could.
fn very_near<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_by(0.85, word, known)
}

fn nearest_by<'a>(alike: f64, word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let alike = known
        .into_iter()
        .map(|one| (strsim::jaro_winkler(word, one), one))
        .filter(|(likeness, _)| *likeness >= alike);
    alike.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, one)| one)
}

/// What people write for words of ours.
const SYNONYMS: [(&str, &str); 11] = [
    ("deny", "reject"),
    ("refuse", "reject"),
    ("block", "reject"),
    ("rst", "reject"),
    ("reset", "reject"),
    ("allow", "pass"),
    ("accept", "pass"),
    ("bypass", "pass"),
    ("ignore", "drop"),
    ("blackhole", "drop"),
    ("warning", "warn"),
];

/// Which of the valid words may have been meant.
pub(crate) fn word_meant<'a>(word: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (word, valid) = (word.to_lowercase(), valid.into_iter().collect::<Vec<_>>());
    let synonym = SYNONYMS.iter().find(|(typed, _)| *typed == word).map_or(&*word, |(_, meant)| meant);
    valid.iter().find(|one| **one == synonym).copied().or_else(|| nearest(&word, valid))
}

/// The same where another word could stand as well: a host is called as its owner likes.
fn word_like<'a>(word: &str, valid: &[&'a str]) -> Option<&'a str> {
    let synonym = SYNONYMS.iter().find(|(typed, _)| *typed == word).map_or(word, |(_, meant)| meant);
    valid.iter().find(|one| **one == synonym).copied().or_else(|| very_near(word, valid.iter().copied()))
}

/// A text without what stands around it by mistake: white space and quotes.
fn bare(text: &str) -> &str {
    text.trim().trim_matches(['"', '\'', '`']).trim()
}

#[cfg(test)]
mod tests;
