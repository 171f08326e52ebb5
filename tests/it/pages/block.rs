//! What a page says that a reader would type, in order.

use std::{fs, mem, path::Path};

/// One fenced block, or what a hidden comment says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The line where it begins, from 1.
    pub(super) line: usize,
    pub(super) what: What,
    pub(super) text: String,
}

/// What is done with a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Each command of it must succeed, or end with the code that its comment names: `# exit code 5`.
    Commands(Meanwhile),
    /// Commands after `$ `, each with what it prints.
    Session(Meanwhile),
    /// What a file of this name has.
    File(String),
    /// A configuration file that must be right.
    Configuration,
    /// Something to read only. A block of commands, a session, or a configuration is so only where a comment gives the reason.
    Text,
}

/// What goes on while the page does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Meanwhile {
    /// Each command does, not only those that end with `&`.
    pub(super) each: bool,
    /// What comes next has to wait until this command succeeds.
    pub(super) until: Option<String>,
}

/// The blocks of a page. What to do with one is said by the HTML comment in the line above it, which readers do not see:
/// `not run: REASON`; `file: NAME`; `until: COMMAND`, and `meanwhile, until: COMMAND` where all commands of the block go on. A
/// comment `first:`, or `first, until: COMMAND`, has commands of its own, a line each.
pub(super) fn read(path: &Path) -> Vec<Block> {
    let page = fs::read_to_string(path).unwrap_or_else(|error| panic!("read `{}`: {error}", path.display()));
    parse(&page)
}

fn parse(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut said = String::new();
    let mut lines = page.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let indent = line.len() - line.trim_start().len();
        if let Some(comment) = line.strip_prefix("<!-- ") {
            said = match comment.strip_suffix(" -->") {
                Some(said) => said.to_owned(),
                None => {
                    let more = lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "-->");
                    [comment].into_iter().chain(more).collect::<Vec<_>>().join("\n")
                }
            };
            if let Some((verb, text)) = said.split_once('\n') {
                let until = match verb.strip_prefix("first") {
                    Some(":") => None,
                    Some(until) => until.strip_prefix(", until: ").map(str::to_owned),
                    None => {
                        panic!("line {number}: a comment of several lines that does not begin with `first`")
                    }
                };
                let what = What::Commands(Meanwhile { each: false, until });
                blocks.push(Block { line: number, what, text: text.to_owned() });
                said.clear();
            }
        } else if let Some(language) = line.trim_start().strip_prefix("```") {
            let text: Vec<_> = lines
                .by_ref()
                .map(|(line, _)| line.get(indent..).unwrap_or_default())
                .take_while(|line| *line != "```")
                .collect();
            let what = what(language, &mem::take(&mut said), number);
            blocks.push(Block { line: number, what, text: text.join("\n") });
        } else if !said.is_empty() {
            panic!("line {number}: a comment `{said}` that no block follows");
        }
    }
    blocks
}

fn what(language: &str, said: &str, line: usize) -> What {
    let (verb, rest) = said.split_once(": ").unwrap_or((said, ""));
    let waits = matches!(verb, "until" | "meanwhile, until");
    let meanwhile = Meanwhile { each: verb.starts_with("meanwhile"), until: waits.then(|| rest.to_owned()) };
    match (language, verb) {
        (_, "not run") => {
            assert!(!rest.is_empty(), "line {line}: `not run` without a reason");
            What::Text
        }
        (_, "file") => What::File(rest.to_owned()),
        ("sh", _) if waits || verb.is_empty() => What::Commands(meanwhile),
        ("console", "" | "until") => What::Session(meanwhile),
        ("toml", "") => What::Configuration,
        ("sh" | "console" | "toml", _) => panic!("line {line}: `{said}` says nothing of such a block"),
        (_, "") => What::Text,
        _ => panic!("line {line}: `{said}` is of a block that is not run"),
    }
}

/// The commands of a block: a line each, but where a backslash or `do` or `{` says that one goes on.
pub(super) fn commands(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut command = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        command += line;
        match command.strip_suffix('\\').map(str::len) {
            Some(length) => command.truncate(length),
            None => commands.push(mem::take(&mut command)),
        }
    }
    commands.retain(|command| !command.trim().is_empty());
    commands
}

/// The commands of a session, each with what it prints.
pub(super) fn session(text: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((command, _))) if command.ends_with('\\') => {
                command.pop();
                *command += line;
            }
            (None, Some((_, printed))) => {
                *printed += line;
                printed.push('\n');
            }
            (None, None) => panic!("a session begins with a command: {line}"),
        }
    }
    commands
}

#[test]
fn blocks_are_found_with_what_is_said_of_them() {
    let page = "text\n<!-- first, until: x\nip netns add web\n-->\n\n<!-- meanwhile, until: y -->\n```sh\na\n```\n<!-- until: b -->\n```console\n$ c &\n```\n\
                1. x\n   ```toml\n   d = 1\n   ```\n<!-- file: e -->\n```\nf\n\n```\n<!-- not run: g -->\n```sh\nh\n```\n";
    let found: Vec<_> = parse(page).into_iter().map(|block| (block.line, block.what, block.text)).collect();
    let meanwhile = |each, until: &str| Meanwhile { each, until: Some(until.to_owned()) };
    let wanted = [
        (2, What::Commands(meanwhile(false, "x")), "ip netns add web"),
        (7, What::Commands(meanwhile(true, "y")), "a"),
        (11, What::Session(meanwhile(false, "b")), "$ c &"),
        (15, What::Configuration, "d = 1"),
        (19, What::File("e".to_owned()), "f\n"),
        (24, What::Text, "h"),
    ];
    assert_eq!(found, wanted.map(|(line, what, text)| (line, what, text.to_owned())));
}

#[test]
fn a_command_goes_on_after_a_backslash() {
    assert_eq!(commands("# x\na \\\n  b\nc   # d\n\n"), ["a   b", "c   # d"]);
    let wanted = [("a b", "c\nd\n"), ("e", "")].map(|(one, other)| (one.to_owned(), other.to_owned()));
    assert_eq!(session("$ a \\\nb\nc\nd\n$ e"), wanted);
}
