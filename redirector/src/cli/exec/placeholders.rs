//! What stands for listeners in arguments, variables and templates.

use std::io;

use super::Failure;
use crate::{control::LeasedListener, netns::Family};

/// Placeholders and what they stand for; `None` where there is no such listener.
#[derive(Debug)]
pub(super) struct Placeholders([(&'static str, Option<String>); 5]);

impl Placeholders {
    /// The listeners have the fds from `first_fd` on, in order.
    pub(super) fn new(listeners: &[LeasedListener], first_fd: i32) -> Self {
        let of = |family| listeners.iter().zip(first_fd..).find(|(listener, _)| listener.family == family);
        let (v4, v6) = (of(Family::Ipv4), of(Family::Ipv6));
        Self([
            ("{fd4}", v4.map(|(_, fd)| fd.to_string())),
            ("{fd6}", v6.map(|(_, fd)| fd.to_string())),
            ("{listen4}", v4.map(|(listener, _)| listener.address.to_string())),
            ("{listen6}", v6.map(|(listener, _)| listener.address.to_string())),
            ("{port}", listeners.first().map(|listener| listener.address.port().to_string())),
        ])
    }

    /// The text with every placeholder filled in. Other braces stay.
    pub(super) fn fill(&self, text: &str) -> Result<String, Failure> {
        let mut filled = text.to_owned();
        for (placeholder, value) in &self.0 {
            if !filled.contains(placeholder) {
                continue;
            }
            let value = value.as_ref().ok_or_else(|| {
                let why = format!(
                    "`{placeholder}`: there is no such listener: the kernel lacks this family, or CMD gets none (`--listeners`, `--listen-as`)"
                );
                Failure::failed(&io::Error::other(why)).of_exec()
            })?;
            filled = filled.replace(placeholder, value);
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(family: Family, address: &str) -> LeasedListener {
        LeasedListener { family, address: address.parse().unwrap(), name: String::new(), dual: false }
    }

    #[test]
    fn every_placeholder_is_filled_in_and_nothing_else() {
        let both = [listener(Family::Ipv4, "127.0.0.1:61000"), listener(Family::Ipv6, "[::1]:61000")];
        let placeholders = Placeholders::new(&both, 3);
        let filled = placeholders.fill("fd@{fd4},fd@{fd6} {listen4} {listen6} {port} {\"a\": {}} {fd5}");
        assert_eq!(filled.unwrap(), "fd@3,fd@4 127.0.0.1:61000 [::1]:61000 61000 {\"a\": {}} {fd5}");
    }

    #[test]
    fn a_listener_that_is_not_there_is_an_error_only_where_it_is_named() {
        let one = [listener(Family::Ipv4, "127.0.0.1:61000")];
        let placeholders = Placeholders::new(&one, 3);
        assert_eq!(placeholders.fill("{fd4}").unwrap(), "3");
        assert!(placeholders.fill("{fd6}").is_err());
        assert!(placeholders.fill("{listen6}").is_err());
    }
}
