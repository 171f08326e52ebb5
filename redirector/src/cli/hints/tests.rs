//! What is typed, and the line that is suggested; nothing for a dash.

use clap::Parser as _;

use super::*;

/// A line as a shell would give it: words, and what is in single quotes as one.
fn split(line: &str) -> Vec<OsString> {
    let mut words = vec![String::new()];
    let (mut is_quoted, mut is_word) = (false, false);
    for one in line.chars() {
        match one {
            '\'' => (is_quoted, is_word) = (!is_quoted, true),
            ' ' if !is_quoted => words.push(String::new()),
            _ => words.last_mut().unwrap().push(one),
        }
    }
    let _ = is_word;
    ["redirector".to_owned()].into_iter().chain(words).map(Into::into).collect()
}

fn hint_of(line: &str) -> String {
    let typed = super::super::words::of(split(line).into_iter());
    match Args::try_parse_from(&typed) {
        Ok(_) => panic!("`{line}` is taken"),
        Err(error) => hint(&error, &typed),
    }
}

#[test]
fn a_line_that_is_suggested_is_taken_and_is_the_one_that_was_meant() {
    const ATTACH: &str = "attach netns:x --match tcp:80 --to 127.0.0.1:5777";
    let cases = [
        // Commands.
        ("attch netns:x --match tcp:80 --to pass", "attach netns:x --match tcp:80 --to pass"),
        ("lst", "list"),
        ("ls", "list"),
        ("ps --json", "list --json"),
        ("status netns:x", "list netns:x"),
        ("rm netns:x", "detach netns:x"),
        ("remove netns:x --rule a", "detach netns:x --rule a"),
        ("delete netns:x", "detach netns:x"),
        ("add netns:x --match tcp:80 --to 127.0.0.1:5777", ATTACH),
        ("diff a.toml", "apply --dry-run a.toml"),
        ("validate a.toml", "check a.toml"),
        ("aply a.toml", "apply a.toml"),
        ("Doctor", "doctor"),
        ("--socket /x lst", "--socket /x list"),
        ("netns:x attach --match tcp:80 --to pass", "attach netns:x --match tcp:80 --to pass"),
        ("--json list", "list --json"),
        // Options.
        ("attach netns:x --mach tcp:80 --to 127.0.0.1:5777", ATTACH),
        ("attach netns:x --port 80 --dest 5777", ATTACH),
        (
            "attach --target netns:x --match tcp:80 --to 127.0.0.1:5777",
            "attach netns:x --match tcp:80 --to 127.0.0.1:5777",
        ),
        ("attach --netns x --match=80 --to=:5777", "attach netns:x --match=tcp:80 --to=127.0.0.1:5777"),
        ("apply a.toml --dryrun", "apply a.toml --dry-run"),
        ("apply a.toml --dry-run=true", "apply a.toml --dry-run"),
        ("apply -f a.toml", "apply a.toml"),
        ("check --config a.toml", "check a.toml"),
        ("list -o json", "list --json"),
        ("list --watch 1s", "list --watch=1s"),
        ("run -c a.toml", "run --config a.toml"),
        ("run a.toml", "run --config a.toml"),
        // Places.
        ("attach netns:x tcp:80 127.0.0.1:5777", ATTACH),
        ("attach netns:x tcp:80 to 127.0.0.1:5777", ATTACH),
        ("attach netns:x 80 5777", ATTACH),
        ("attach tcp:80 netns:x --to 127.0.0.1:5777", "attach netns:x --match tcp:80 --to 127.0.0.1:5777"),
        ("attach netns:x tcp:80 reject", "attach netns:x --match tcp:80 --to reject"),
        ("detach netns:x rule-1", "detach netns:x --rule rule-1"),
        ("exec netns:x --match tcp:80 nginx", "exec netns:x --match tcp:80 -- nginx"),
        (
            "exec netns:x --match tcp:80 nginx -g 'daemon off;'",
            "exec netns:x --match tcp:80 -- nginx -g 'daemon off;'",
        ),
        ("exec netns:x --match 80 -- nginx", "exec netns:x --match tcp:80 -- nginx"),
        // Values.
        ("attach x --match tcp:80 --to pass", "attach docker:x --match tcp:80 --to pass"),
        ("attach netns=x --match 80/tcp --to tcp:127.0.0.1:5777", ATTACH),
        ("attach netns:x --match tcp/80 --to ::1:5777", "attach netns:x --match tcp:80 --to '[::1]:5777'"),
        ("attach netns:x --match tcp:80, --to REJECT", "attach netns:x --match tcp:80 --to reject"),
        ("attach netns:x --match tcp --to deny", "attach netns:x --match 'tcp:*' --to reject"),
        (
            "attach netns:x --match tcp:80 --to pass --from 10.0.0.1/8,fd00::1/16",
            "attach netns:x --match tcp:80 --to pass --from 10.0.0.0/8,fd00::/16",
        ),
        (
            "attach netns:x --match tcp:80 --to pass --on-unavailable REJECT",
            "attach netns:x --match tcp:80 --to pass --on-unavailable reject",
        ),
        (
            "attach netns:x --match tcp:80 --to pass --on-unavailable deny",
            "attach netns:x --match tcp:80 --to pass --on-unavailable reject",
        ),
        (
            "attach netns:x --match tcp:80 --to pass --idle-timeout never",
            "attach netns:x --match tcp:80 --to pass --idle-timeout 0s",
        ),
        (
            "attach netns:x --match tcp:80 --to pass --connect-timeout 5",
            "attach netns:x --match tcp:80 --to pass --connect-timeout 5s",
        ),
        (
            "attach netns:x --match tcp:80 --to pass --interface 'not lo'",
            "attach netns:x --match tcp:80 --to pass --interface '!lo'",
        ),
        (
            "exec netns:x --match tcp:80 --listen-as tcp:80 -- a",
            "exec netns:x --match tcp:80 --listen-as 80 -- a",
        ),
        ("completions Bash", "completions bash"),
        ("attach netns:x --match sctp:80 --to pass", "-"),
    ];
    let mut wrong = Vec::new();
    for (typed, meant) in cases {
        let told = hint_of(typed);
        let line = told.strip_prefix("did you mean `redirector ").and_then(|told| told.strip_suffix("`?"));
        if line.unwrap_or("-") != meant {
            wrong.push(format!("`{typed}`: expected `{meant}`: {told}"));
        }
        if let Some(line) = line {
            let words = super::super::words::of(split(line).into_iter());
            if let Err(error) = Args::try_parse_from(words) {
                wrong.push(format!("`{typed}`: `{line}` is refused: {error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_no_line_can_show_is_told_and_each_hint_names_its_command() {
    for (typed, part) in [
        ("reload", "SIGHUP"),
        ("stop", "SIGTERM"),
        ("logs", "redirector::access=debug"),
        ("stats", "`redirector list"),
        ("attach", "`redirector help attach`"),
        ("attach netns:x", "--match <MATCH>"),
        ("attach netns:x --match sctp:80 --to pass", "`redirector help attach`"),
        ("detach netns:a netns:b", "`redirector detach` takes one TARGET"),
        ("list netns:a netns:b", "`redirector list` takes one TARGET"),
        ("doctor netns:a", "`redirector help doctor`"),
        ("xyzzy", "`redirector help`"),
    ] {
        let told = hint_of(typed);
        assert!(told.contains(part), "`{typed}`: {told}");
    }
}

#[test]
fn words_are_quoted_for_a_shell() {
    for (word, shown) in
        [("tcp:80", "tcp:80"), ("tcp:*", "'tcp:*'"), ("", "''"), ("it's", r"'it'\''s'"), ("!lo", "'!lo'")]
    {
        assert_eq!(quoted(word), shown);
    }
}
