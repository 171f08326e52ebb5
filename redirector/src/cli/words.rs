//! The words of a command line, before clap sees them.

use std::ffi::OsString;

/// The same words, but of a flow after `explain` what stands on both sides of `->` is one word with it: alone it would be an
/// option.
pub(super) fn of(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let words: Vec<_> = words.collect();
    if command(&words) != Some("explain") {
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

/// The first word that is neither an option nor the value of one.
fn command(words: &[OsString]) -> Option<&str> {
    let mut words = words.iter().skip(1);
    loop {
        let word = words.next()?.to_str()?;
        if word == "--socket" {
            words.next();
        } else if !word.starts_with('-') {
            return Some(word);
        }
    }
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
