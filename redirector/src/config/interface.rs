//! By which interface a rule's traffic comes.

use std::{fmt, str::FromStr};

use super::{ParseError, meant::read_or_guess};

/// Interfaces of the target by which traffic comes: `NAME`, or `!NAME` for every one but that. A name is 1 to 15 bytes without
/// `/`, `:` or white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface {
    name: String,
    sense: Sense,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Sense {
    This,
    AllOthers,
}

impl Interface {
    /// The name that is written, of the interface that is meant or left out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether every other interface is meant.
    #[must_use]
    pub fn is_excluded(&self) -> bool {
        self.sense == Sense::AllOthers
    }
}

impl FromStr for Interface {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        read_or_guess("interface", text)
    }
}

/// As the kernel judges names (`dev_valid_name`, net/core/dev.c), but for a `!` in front. Says why a text is no interface, and
/// does not repeat it.
pub(super) fn parse(text: &str) -> Result<Interface, ParseError> {
    let (name, sense) = match text.strip_prefix('!') {
        Some(name) => (name, Sense::AllOthers),
        None => (text, Sense::This),
    };
    let is_good = (1..=15).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.chars().any(|one| matches!(one, '/' | ':' | '\0') || one.is_whitespace());
    if sense == Sense::AllOthers && name.starts_with('=') {
        return Err(ParseError("all but one are `!NAME`".into()));
    }
    if !is_good {
        return Err(ParseError("a name is 1 to 15 bytes without `/`, `:` or white space".into()));
    }
    Ok(Interface { name: name.into(), sense })
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_excluded() { "!" } else { "" })?;
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_the_kernel_judges_them() {
        for name in ["lo", "eth0", "eth0.100", "a", "veth-0123456789", "br@x", "!lo", "!veth-0123456789"] {
            assert_eq!(name.parse::<Interface>().unwrap().to_string(), name);
        }
        for name in [
            "",
            ".",
            "..",
            "eth0:1",
            "a/b",
            "a b",
            "a\tb",
            "a\0b",
            "veth-01234567890",
            "!",
            "!veth-01234567890",
        ] {
            let error = name.parse::<Interface>().unwrap_err().to_string();
            assert!(error.starts_with("interface `"), "{name:?}: {error}");
        }
    }
}
