//! Interfaces that are written otherwise.

use super::{Meant, bare};
use crate::config::{Interface, ParseError, interface};

impl Meant for Interface {
    fn read(text: &str) -> Result<Self, ParseError> {
        interface::parse(text)
    }

    fn guesses(text: &str) -> Vec<String> {
        let text = bare(text);
        let mut guesses = Vec::new();
        let negated = ["!=", "! ", "not ", "not:", "^", "~"].iter().find_map(|not| text.strip_prefix(not));
        guesses.extend(negated.map(|name| format!("!{}", name.trim())));
        // `eth0:` of `ip link`, `eth0:1` of `ifconfig`.
        guesses.extend(text.split([':', ' ', '/']).find(|name| !name.is_empty()).map(str::to_owned));
        guesses
    }
}
