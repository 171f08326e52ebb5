//! The words of a command line, before clap sees them.

use std::ffi::{OsStr, OsString};

/// The same words, but of a flow after `explain` what stands on both sides of `->` is one word with it: alone it would be an
/// option.
pub(super) fn of(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<_> = words.collect();
    if command(words.get(1..).unwrap_or_default()).map(|(_, name)| name) != Some("explain") {
        return words;
    }
    let mut joined: Vec<OsString> = Vec::with_capacity(words.len());
    let mut is_open = false;
    for word in words {
        let is_arrow = word == "->";
        match joined.last_mut() {
            Some(last) if is_arrow || is_open => {
                last.push(" ");
                last.push(word);
            }
            _ => joined.push(word),
        }
        is_open = is_arrow;
    }
    joined
}

/// The first of the words after the name of the program that is neither an option nor the value of one, and where it is.
pub(super) fn command<W: AsRef<OsStr>>(words: &[W]) -> Option<(usize, &str)> {
    let mut is_value = false;
    for (at, word) in words.iter().enumerate() {
        let word = word.as_ref().to_str()?;
        if is_value {
            is_value = false;
        } else if word == "--socket" {
            is_value = true;
        } else if !word.starts_with('-') {
            return Some((at, word));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flow_is_joined() {
        for (words, joined) in [
            ("explain T tcp A -> B dev C --json", "explain/T/tcp/A -> B/dev/C/--json"),
            ("--socket S explain T tcp A -> B", "--socket/S/explain/T/tcp/A -> B"),
            ("--socket=S explain T tcp A ->", "--socket=S/explain/T/tcp/A ->"),
            ("exec T -- explain A -> B", "exec/T/--/explain/A/->/B"),
            ("--socket explain exec -> B", "--socket/explain/exec/->/B"),
            ("", ""),
        ] {
            let of = of(["redirector"].into_iter().chain(words.split_whitespace()).map(Into::into));
            assert_eq!(of[1..].join("/".as_ref()), joined, "{words}");
        }
    }
}
