//! What parsers say, in words of the file, and what to write instead.

use toml::Table;

use crate::config::meant::word_meant;

/// A message, and a known mend.
pub(super) type Told = (String, Option<String>);

/// A line that is no TOML, of which the parser says `message`.
pub(super) fn of_line(message: String, line: &str) -> Told {
    let line = line.trim();
    let quotes = line.replace("\\\"", "").matches('"').count();
    if quotes % 2 == 1 && !line.contains("\"\"\"") && !line.contains('\'') {
        return ("a quote is missing: a text stands in quotes on both sides".into(), None);
    }
    if let Some((key, value)) = line.split_once('=')
        && let Some(quoted) = quoted(value.split(" #").next().unwrap_or(value).trim())
    {
        let (key, good) = (key.trim(), format!("{} = {quoted}", key.trim()));
        if good.parse::<Table>().is_ok() {
            return (format!("`{key}`: a text stands in quotes"), Some(format!("write `{good}`")));
        }
    }
    (message, None)
}

/// A value with quotes around each text of it, where there is none.
fn quoted(value: &str) -> Option<String> {
    if value.is_empty() || value.contains('"') || value.contains('\'') || value.starts_with('{') {
        return None;
    }
    match value.strip_prefix('[') {
        None => Some(format!("\"{value}\"")),
        Some(list) => {
            let items = list.strip_suffix(']')?.split(',').map(str::trim).filter(|item| !item.is_empty());
            Some(format!("[{}]", items.map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")))
        }
    }
}

/// What serde says of the value of a key. `None` where it is no jargon.
pub(super) fn of_value(key: &str, message: &str) -> Option<Told> {
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut words = rest.split('`').skip(1).step_by(2);
        let found = words.next()?;
        let valid: Vec<_> = words.collect();
        let shown: Vec<_> = valid.iter().map(|one| format!("`{one}`")).collect();
        let hint = word_meant(found, valid).map(|one| format!("did you mean `{one}`?"));
        return Some((format!("`{key}`: `{found}` is none of {}", shown.join(", ")), hint));
    }
    let what = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))?;
    let (found, expected) = what.rsplit_once(", expected ")?;
    let expected = Expected::of(expected)?;
    let hint = expected.instead_of(key, found).map(|value| format!("write `{key} = {value}`"));
    Some((format!("`{key}`: expected {}, found {}", expected.shown(), shown(found)), hint))
}

/// What a value was, as serde calls it.
fn shown(found: &str) -> String {
    let (kind, value) = found.split_once(' ').unwrap_or((found, ""));
    match kind {
        "integer" | "floating" => format!("the number {}", value.trim_start_matches("point ")),
        "string" => format!("the text {value}"),
        "boolean" => value.to_owned(),
        "sequence" => "a list".into(),
        "map" => "a table".into(),
        _ => found.to_owned(),
    }
}

/// What a value should be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Text,
    Number,
    PositiveNumber,
    Boolean,
    List,
    Table,
}

/// Keys whose values are times.
const TIMES: [&str; 4] = ["connect_timeout", "idle_timeout", "drain_timeout", "resolve_interval"];

impl Expected {
    /// By what serde calls it.
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "a string" | "a borrowed string" | "path string" => Self::Text,
            "a boolean" => Self::Boolean,
            "a sequence" => Self::List,
            _ if text.starts_with("struct ") || text == "a map" => Self::Table,
            _ if text.starts_with("a nonzero ") => Self::PositiveNumber,
            _ if text.len() <= 5 && text.starts_with(['i', 'u']) => Self::Number,
            _ => return None,
        })
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a whole number that is not too large",
            Self::PositiveNumber => "a whole number from 1 on that is not too large",
            Self::Boolean => "`true` or `false`",
            Self::List => "a list",
            Self::Table => "a table",
        }
    }

    /// What to write for a value.
    fn instead_of(self, key: &str, found: &str) -> Option<String> {
        let (kind, value) = found.split_once(' ')?;
        let value = value.trim_start_matches("point ").trim_matches(['`', '"']);
        match (self, kind) {
            (Self::Text, "integer" | "floating") if TIMES.contains(&key) => Some(format!("\"{value}s\"")),
            (Self::Text, "integer") if matches!(key, "match" | "except") => {
                Some(format!("[\"tcp:{value}\"]"))
            }
            (Self::Text, "integer") if key == "to" => Some(format!("[\"127.0.0.1:{value}\"]")),
            (Self::Text, "integer" | "boolean") => Some(format!("\"{value}\"")),
            (Self::Number | Self::PositiveNumber, "string") => {
                value.trim().parse::<i32>().ok().map(|number| number.to_string())
            }
            (Self::Boolean, "string") => match &*value.to_lowercase() {
                "true" | "yes" | "on" | "1" => Some("true".into()),
                "false" | "no" | "off" | "0" => Some("false".into()),
                _ => None,
            },
            (Self::Boolean, "integer") => match value {
                "0" => Some("false".into()),
                "1" => Some("true".into()),
                _ => None,
            },
            (Self::List, "string") => Some(format!("[\"{value}\"]")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::file::ConfigFile;

    /// Each line: a rule's line or that of its namespace, what is said, and what is to be written. All of them are good again
    /// with that in their places.
    #[test]
    fn a_mistake_is_told_in_words_of_the_file_with_what_to_write() {
        let rule = "match = [\"tcp:80\"]\nto = [\"pass\"]\n";
        for (wrong, said, written) in [
            ("target = netns:web", "`target`: a text stands in quotes", "target = \"netns:web\""),
            ("target = web", "`target`: a text stands in quotes", ""),
            (
                "match = [tcp:80, tcp:81]",
                "`match`: a text stands in quotes",
                "match = [\"tcp:80\", \"tcp:81\"]",
            ),
            (
                "connect_timeout = 5s",
                "`connect_timeout`: a text stands in quotes",
                "connect_timeout = \"5s\"",
            ),
            ("match = [\"tcp:80, \"tcp:81\"]", "a quote is missing", ""),
            ("target = \"netns:web", "a quote is missing", ""),
            ("match = [80]", "`match`: expected a text, found the number `80`", "match = [\"tcp:80\"]"),
            ("match = \"tcp:80\"", "`match`: expected a list, found the text", "match = [\"tcp:80\"]"),
            ("to = [5777]", "`to`: expected a text", "to = [\"127.0.0.1:5777\"]"),
            (
                "connect_timeout = 5",
                "`connect_timeout`: expected a text, found the number",
                "connect_timeout = \"5s\"",
            ),
            (
                "idle_timeout = 1.5",
                "`idle_timeout`: expected a text, found the number",
                "idle_timeout = \"1.5s\"",
            ),
            ("priority = \"10\"", "`priority`: expected a whole number", "priority = 10"),
            ("coexist = \"yes\"", "`coexist`: expected `true` or `false`, found the text", "coexist = true"),
            (
                "on_unavailable = \"deny\"",
                "`on_unavailable`: `deny` is none of `pass`, `reject`, `drop`",
                "reject",
            ),
            ("on_unavailable = \"REJECT\"", "`on_unavailable`: `REJECT` is none of", "reject"),
        ] {
            let key = wrong.split(' ').next().unwrap();
            let file = |line: &str| {
                let target = if key == "target" { line } else { "target = \"netns:web\"" };
                let own = if key == "target" { "" } else { line };
                let rest: String = rule
                    .lines()
                    .filter(|line| !line.starts_with(key))
                    .map(|line| format!("{line}\n"))
                    .collect();
                format!("[[namespace]]\n{target}\n[[namespace.rule]]\n{own}\n{rest}")
            };
            let problems = ConfigFile::parse(file(wrong).as_bytes()).unwrap_err();
            assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
            let hint = problems[0].hint.clone().unwrap_or_default();
            assert!(problems[0].message.contains(said) && hint.contains(written), "{wrong}: {problems:?}");
            if let Some(line) = hint.strip_prefix("write `").and_then(|hint| hint.strip_suffix('`')) {
                let again = ConfigFile::parse(file(line).as_bytes());
                assert!(again.is_ok() || written.is_empty(), "{line}: {again:?}");
            }
        }
    }

    #[test]
    fn a_misspelt_table_is_told_once() {
        let rule = "match = [\"tcp:80\"]\nto = [\"pass\"]\n";
        for (text, hint) in [
            (format!("# c\n[[namespace]]\ntarget = \"netns:a\"\n[[namespace.rules]]\n{rule}"), "`rule`"),
            (format!("[[namespaces]]\ntarget = \"netns:a\"\n[[namespace.rule]]\n{rule}"), "`namespace`"),
            (format!("[[discovery]]\ndocker = {{ label = \"a\" }}\n[[discover.rule]]\n{rule}"), "`discover`"),
        ] {
            let problems = ConfigFile::parse(text.as_bytes()).unwrap_err();
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].hint.as_ref().is_some_and(|told| told.contains(hint)), "{problems:?}");
        }
    }
}
