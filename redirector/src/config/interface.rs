//! By which interface a rule's traffic comes.

use std::{fmt, str::FromStr};

use super::ParseError;

/// The name of a network interface of the target: 1 to 15 bytes without `/`, `:` or white space.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interface(String);

impl Interface {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Interface {
    type Err = ParseError;

    /// As the kernel judges names (`dev_valid_name`, net/core/dev.c).
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let is_good = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && !text.chars().any(|one| matches!(one, '/' | ':' | '\0') || one.is_whitespace());
        if !is_good {
            return Err(ParseError(format!(
                "interface `{}`: a name is 1 to 15 bytes without `/`, `:` or white space",
                text.escape_debug()
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_the_kernel_judges_them() {
        for name in ["lo", "eth0", "eth0.100", "a", "veth-0123456789", "br@x"] {
            assert_eq!(name.parse::<Interface>().unwrap().to_string(), name);
        }
        for name in ["", ".", "..", "eth0:1", "a/b", "a b", "a\tb", "a\0b", "veth-01234567890"] {
            let error = name.parse::<Interface>().unwrap_err().to_string();
            assert!(error.starts_with("interface `"), "{name:?}: {error}");
        }
    }
}
