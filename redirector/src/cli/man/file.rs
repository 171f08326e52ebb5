//! `redirector.toml(5)`, from the JSON schema of the file: its keys, what they mean, what they are without a word.

use std::io;

use clap_mangen::roff::{Roff, bold, roman};
use serde_json::{Map, Value};

use super::page::{preformatted, prose};
use crate::config::file::schema;

/// The page's file.
pub(super) const NAME: &str = "redirector.toml.5";

/// Its tables, in the order of the page, each with its type in the schema.
const TABLES: [(&str, &str); 5] = [
    ("[[namespace]]", "NamespaceSpec"),
    ("[[namespace.rule]], [[discover.rule]]", "RuleSpec"),
    ("[[discover]]", "DiscoverSpec"),
    ("docker, podman of [[discover]]", "Selector"),
    ("[daemon]", "DaemonOptions"),
];

const EXAMPLE: &str = r#"[[namespace]]
target = "docker:web"

[[namespace.rule]]
name = "http"
match = ["tcp:80", "tcp:443"]
to = ["docker:proxy/127.0.0.1:8080"]
on_unavailable = "pass""#;

pub(super) fn render() -> io::Result<Vec<u8>> {
    let schema = serde_json::to_value(schema())?;
    let types = schema["$defs"].as_object().ok_or_else(|| io::Error::other("the schema has no types"))?;
    let mut page = Roff::new();
    let version = format!("redirector {}", env!("CARGO_PKG_VERSION"));
    page.control("TH", ["redirector.toml", "5", "", &version, "redirector"]);
    page.control("SH", ["NAME"]);
    page.text([roman("redirector.toml - what redirector steers, as a file")]);
    page.control("SH", ["DESCRIPTION"]);
    prose(
        &mut page,
        "A TOML file that `redirector apply` brings into force, whole or not at all, and that `redirector run --config` begins \
         with and applies again at SIGHUP. `redirector check` says everything that is wrong with one. Keys that are not \
         known are errors.",
    );
    for (heading, name) in TABLES {
        page.control("SH", [heading]);
        let table = &types[name];
        prose(&mut page, text(table));
        keys(&mut page, table, types);
    }
    page.control("SH", ["VALUES"]);
    for (name, value) in types.iter().filter(|(_, value)| value["type"] == "string") {
        entry(&mut page, name, text(value));
    }
    page.control("SH", ["EXAMPLES"]);
    preformatted(&mut page, EXAMPLE);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("redirector-apply"), roman("(1), "), bold("redirector-check"), roman("(1)")]);
    let mut bytes = Vec::new();
    page.to_writer(&mut bytes)?;
    Ok(bytes)
}

fn text(of: &Value) -> &str {
    of["description"].as_str().unwrap_or_default()
}

fn entry(page: &mut Roff, name: &str, what: &str) {
    page.control("TP", []);
    page.text([bold(name)]);
    page.text([roman(what)]);
}

/// Each key of a table but those that are tables themselves.
fn keys(page: &mut Roff, table: &Value, types: &Map<String, Value>) {
    let required = table["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (key, value) in table["properties"].as_object().into_iter().flatten() {
        let mut what = text(value).to_owned();
        if let Some(choices) = reference(value).and_then(|name| types[name]["oneOf"].as_array()) {
            for choice in choices {
                let name = choice["const"].as_str().unwrap_or_default();
                what += &format!(" \"{name}\": {}", text(choice));
            }
        }
        match &value["default"] {
            _ if required.contains(&Value::from(key.as_str())) => what += " Has to be there.",
            Value::Null | Value::Array(_) => {}
            default => what += &format!(" Without it {default}."),
        }
        entry(page, &format!("{key} = {}", kind(value)), &what);
    }
}

/// The name of the type that a key's value has, where it has one.
fn reference(value: &Value) -> Option<&str> {
    named(value).or_else(|| value["anyOf"].as_array()?.iter().find_map(named))
}

fn named(value: &Value) -> Option<&str> {
    value["$ref"].as_str()?.rsplit('/').next()
}

/// What a value looks like: a type of the schema, in words.
fn kind(value: &Value) -> String {
    if let Some(name) = reference(value) {
        return name.to_uppercase();
    }
    let kinds: Vec<_> = match &value["type"] {
        Value::Array(kinds) => {
            kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect()
        }
        kind => kind.as_str().into_iter().collect(),
    };
    match kinds.as_slice() {
        ["array"] => format!("[{}, ...]", kind(&value["items"])),
        ["boolean"] => "true|false".to_owned(),
        ["integer"] => "NUMBER".to_owned(),
        _ => "\"...\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_table_and_each_key_of_the_schema_is_in_the_page() {
        let page = String::from_utf8(render().unwrap()).unwrap().replace('\\', "");
        let schema = serde_json::to_value(schema()).unwrap();
        let types = schema["$defs"].as_object().unwrap();
        let tables = types.iter().filter(|(_, one)| one["type"] == "object").map(|(name, _)| name.as_str());
        let mut shown: Vec<_> = TABLES.iter().map(|(_, name)| *name).collect();
        shown.sort_unstable();
        assert_eq!(tables.collect::<Vec<_>>(), shown);
        for (name, one) in types.iter().filter(|(_, one)| one["type"] == "object") {
            for (key, value) in one["properties"].as_object().unwrap() {
                assert!(page.contains(&format!("{key} = ")), "{name}.{key} is not in {page}");
                assert_ne!(text(value), "", "{name}.{key} has no description");
            }
        }
    }

    #[test]
    fn the_example_is_right() {
        assert!(crate::config::file::ConfigFile::parse(EXAMPLE.as_bytes()).is_ok());
    }
}
