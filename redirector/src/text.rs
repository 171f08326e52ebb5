//! What others have said, as text for people.

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
