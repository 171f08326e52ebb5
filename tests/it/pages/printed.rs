//! What a command printed, beside what the page says that it prints.

/// Whether it is the same to a reader. Numbers that differ each time (netns cookies, ports of our listeners, ids) are equal,
/// however wide a column is; `…` stands for anything within a line, and in a line of its own for any lines.
pub(super) fn is_like(printed: &str, said: &str) -> bool {
    let lines = |text: &str| text.trim_end().lines().map(plain).collect::<Vec<_>>();
    lines_are_like(&lines(printed), &lines(said))
}

fn lines_are_like(printed: &[String], said: &[String]) -> bool {
    match (printed, said) {
        (_, [any, said @ ..]) if any == "…" => {
            (0..=printed.len()).any(|skipped| lines_are_like(&printed[skipped..], said))
        }
        ([line, printed @ ..], [wanted, said @ ..]) => {
            line_is_like(line, wanted) && lines_are_like(printed, said)
        }
        ([], []) => true,
        _ => false,
    }
}

fn line_is_like(printed: &str, said: &str) -> bool {
    let mut pieces = said.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = printed.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// One space where there are several, and `N` for a number of five digits or more, and for any after `cookie`.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if digits >= 5 || digits > 0 && plain.ends_with("cookie ") {
            plain.push('N');
        } else if digits > 0 {
            plain += &rest[..digits];
        } else if first != ' ' || !plain.ends_with(' ') {
            plain.push(first);
        }
        rest = &rest[digits.max(if digits == 0 { first.len_utf8() } else { 0 })..];
    }
    plain.trim_end().to_owned()
}

#[test]
fn what_differs_each_time_is_equal_and_nothing_else() {
    for (printed, said) in [
        ("a  b\n", "a b"),
        ("netns:web (cookie 17): 127.0.0.1:61234", "netns:web (cookie 4711): 127.0.0.1:65150"),
        ("a 1 b 2 c", "a … c"),
        ("x\ny\nz", "x\n…"),
        ("x\ny\nz", "…\nz"),
        ("x", "…\nx\n…"),
    ] {
        assert!(is_like(printed, said), "{printed:?} {said:?}");
    }
    for (printed, said) in [
        ("a b", "a c"),
        ("port 80", "port 81"),
        ("a b", "a"),
        ("a", "a b"),
        ("a\nb", "a"),
        ("a 1 b", "a … c"),
        ("", "a"),
        ("x\ny", "…\nx"),
    ] {
        assert!(!is_like(printed, said), "{printed:?} {said:?}");
    }
}
